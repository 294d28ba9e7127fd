"""The verdict on a result: its grade from what was measured, the words for sizes and times, and what to try next."""

import math

import pytest

from onnx_tropnnc.graph.sizes import Size
from onnx_tropnnc.reporting.verdict import judged
from onnx_tropnnc.running.differences import OutputDifference
from onnx_tropnnc.running.latency import Latency
from onnx_tropnnc.running.likely_agreement import LikelyAgreement
from onnx_tropnnc.running.verification import Verification

BEFORE = Size(1000, 2000, 4000)


def size(parameters: int) -> Size:
    return Size(parameters, 2 * parameters, 4 * parameters)


def compared(error: float, *, shortfalls: tuple[str, ...] = (), ms: float | None = None, **more: float) -> Verification:
    latency = None if ms is None else Latency(10.0, ms, 0.1, 0.1, 100, 1, 1)
    agreement = more.get("agreement")
    likely = None if agreement is None else LikelyAgreement(agreement, agreement, agreement)
    output = OutputDifference("y", error, 1.0, 0.0, **more, likely_agreement=likely)
    return Verification((output,), latency, 100, "x.npz", None, shortfalls)


@pytest.mark.parametrize(
    ("found", "grade", "said"),
    [
        (compared(0.02), "good", "outputs differ by about 2 %"),
        (compared(0.004), "good", "outputs differ by about 0.4 %"),
        (compared(0.0), "good", "outputs differ by about 0 %"),
        (compared(0.1), "fair", "outputs differ by about 10 %"),
        (compared(0.5), "poor", "outputs differ by about 50 %"),
        (compared(0.5, agreement=99.0), "good", "top-1 agreement 99.0 %"),
        (compared(0.1, agreement=95.0), "fair", "top-1 agreement 95.0 %"),
        (compared(0.1, agreement=60.0), "poor", "top-1 agreement 60.0 %"),
        (compared(0.1, agreement=60.0, top1_before=90.0, top1_after=89.5), "good", "90.0 % before and 89.5 % after"),
        (compared(0.1, agreement=99.0, top1_before=90.0, top1_after=70.0), "poor", "90.0 % before and 70.0 % after"),
        (compared(0.1, shortfalls=("too far",)), "refused", "outputs differ by about 10 %"),
        (compared(math.inf, shortfalls=("new NaN",)), "refused", "NaN or infinite where the original's are not"),
        (None, "unknown", "not compared with the original"),
        (Verification(not_verified="no onnxruntime"), "unknown", "not compared with the original"),
    ],
    ids=str,
)
def test_the_grade_follows_what_was_measured(found: Verification | None, grade: str, said: str) -> None:
    verdict = judged(BEFORE, size(500), found)
    assert verdict.grade == grade
    assert said in verdict.text
    assert "half the size" in verdict.text.lower()
    assert "\n" not in verdict.line


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (490, "half the size"),
        (335, "a third of the size"),
        (250, "a quarter of the size"),
        (880, "12 % smaller"),
        (400, "60 % smaller"),
        (998, "the same size"),
    ],
)
def test_sizes_are_said_as_people_say_them(parameters: int, said: str) -> None:
    assert judged(BEFORE, size(parameters), compared(0.02)).text == f"Good result: {said}, outputs differ by about 2 %."


@pytest.mark.parametrize(
    ("ms", "said"), [(5.0, "2.0 times faster"), (10.1, "as fast as before"), (20.0, "2.0 times slower")]
)
def test_times_are_said_as_people_say_them(ms: float, said: str) -> None:
    assert f"half the size, {said}, " in judged(BEFORE, size(500), compared(0.02, ms=ms)).text


def test_where_nothing_was_removed_the_verdict_says_where_to_look() -> None:
    verdict = judged(BEFORE, BEFORE, compared(0.0))
    assert (verdict.grade, verdict.text) == ("unchanged", "Nothing was removed.")
    assert "--inspect" in verdict.advice


def test_where_no_channels_went_a_good_result_does_not_promise_that_more_can_go() -> None:
    folded = judged(BEFORE, size(990), compared(0.0), merged=False)
    assert folded.grade == "good"
    assert "--inspect" in folded.advice
    assert "--sweep" in judged(BEFORE, size(990), compared(0.0)).advice


def test_a_verdict_on_made_up_samples_says_so_and_never_guesses() -> None:
    def found(likely: LikelyAgreement) -> Verification:
        return Verification((OutputDifference("y", 0.1, 1.0, 0.0, agreement=99.0, likely_agreement=likely),))

    verdict = judged(BEFORE, size(500), found(LikelyAgreement(95.0, 99.0, 100.0, judged_on="made-up pictures")))
    assert verdict.grade == "good"
    assert verdict.text == "Good result: half the size, top-1 agreement about 95 to 100 %, judged on made-up pictures."
    verdict = judged(BEFORE, size(500), found(LikelyAgreement(0.0, 50.0, 100.0, judged_on="made-up pictures")))
    assert verdict.grade == "unknown"
    assert "--data" in verdict.advice
