"""The verdict on a result: its grade from what was measured, the words for sizes and times, and what to try next."""

import math
from dataclasses import replace

import pytest

from onnx_tropnnc.changes import Unchanged
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


UNCHANGED = Unchanged("of 2 channel groups 2 are kept by options", "--inspect says which option keeps which group.")


def test_where_no_channels_went_the_verdict_says_why_and_what_to_try() -> None:
    verdict = judged(BEFORE, BEFORE, compared(0.0), unchanged=UNCHANGED)
    assert (verdict.grade, verdict.text) == ("unchanged", f"No channel was removed: {UNCHANGED.why}.")
    assert verdict.advice == UNCHANGED.advice


def test_where_no_channels_went_exact_steps_are_told_apart() -> None:
    folded = judged(BEFORE, size(960), compared(0.0, ms=5.0), unchanged=UNCHANGED)
    assert folded.grade == "unchanged"
    assert folded.text.endswith(" Steps that change no output made the model 4 % smaller and 2.0 times faster.")


def test_where_no_channels_went_and_a_demand_is_missed_the_verdict_says_both() -> None:
    missed = judged(BEFORE, BEFORE, compared(0.0, shortfalls=("too slow",)), unchanged=UNCHANGED)
    assert missed.grade == "refused"
    assert missed.text == f"Not good enough, though no channel was removed: {UNCHANGED.why}."


def test_whoever_gave_samples_is_asked_for_more() -> None:
    found = compared(0.5)
    assert "give samples (--data)" in judged(BEFORE, size(500), found).advice
    assert "give more samples" in judged(BEFORE, size(500), replace(found, made_up=False)).advice
    undone = Unchanged(
        "of 1 channel group 1 was undone", "demand less, ask for another amount, or give samples (--data)."
    )
    assert "give more samples" in judged(BEFORE, BEFORE, replace(found, made_up=False), unchanged=undone).advice


def test_what_was_not_compared_says_why_and_how_it_can_be() -> None:
    skipped = judged(BEFORE, size(500), None)
    assert (
        skipped.line == "Half the size, not compared with the original. Next: leave out --no-verify, so that both "
        "models are compared."
    )
    missing = judged(BEFORE, size(500), Verification(not_verified="no kernel for Foo"))
    assert missing.text == "Half the size, not compared with the original, which could not be run here."
    assert "in the runtime that you use" in missing.advice


def test_a_verdict_on_made_up_samples_says_so_and_never_guesses() -> None:
    def found(likely: LikelyAgreement) -> Verification:
        return Verification((OutputDifference("y", 0.1, 1.0, 0.0, agreement=99.0, likely_agreement=likely),))

    verdict = judged(BEFORE, size(500), found(LikelyAgreement(95.0, 99.0, 100.0, judged_on="made-up pictures")))
    assert verdict.grade == "good"
    assert verdict.text == "Good result: half the size, top-1 agreement about 95 to 100 %, judged on made-up pictures."
    verdict = judged(BEFORE, size(500), found(LikelyAgreement(0.0, 50.0, 100.0, judged_on="made-up pictures")))
    assert verdict.grade == "unknown"
    assert "--data" in verdict.advice
