"""What a person is warned of, and what is said to do about it."""

from pathlib import Path

import numpy as np
import pytest
from graphs import graph, groups_of, random_weights

from onnx_tropnnc import compress
from onnx_tropnnc.analysis.rounding import EXACTLY, Rounding
from onnx_tropnnc.changes import Merged, Note, Verified
from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import Size, size_of
from onnx_tropnnc.merging.clustering import Keep
from onnx_tropnnc.merging.merge_map import ChannelVectors, MergeMap
from onnx_tropnnc.options import Options
from onnx_tropnnc.passes import VerifyOutputs
from onnx_tropnnc.report import Report
from onnx_tropnnc.running.differences import OutputDifference
from onnx_tropnnc.running.latency import Latency
from onnx_tropnnc.running.likely_agreement import LikelyAgreement
from onnx_tropnnc.running.verification import Verification
from onnx_tropnnc.searching.advice import concern, fidelity, guessed_ratio, missed_latency, slowdown
from onnx_tropnnc.searching.trials import Trials


@pytest.fixture
def digits_trials(models_folder: Path) -> Trials:
    model = load(models_folder / "digits_depthwise.onnx")
    return Trials(Decider(model, None, size_of(model, shapes_of(model))), VerifyOutputs(), lambda _: None)


def output(name: str, cosine: float, agreement: float | None = None) -> OutputDifference:
    likely = None if agreement is None else LikelyAgreement(agreement, agreement, agreement)
    return OutputDifference(name, 0.1, cosine, 1.0, agreement, likely_agreement=likely)


def test_outputs_far_from_the_original_are_a_concern() -> None:
    assert concern(Verification((output("y", 0.99, 95.0), output("z", 0.95)))) is None
    assert concern(Verification((output("y", 0.99, 89.94),))) == "top-1 agreement is 89.9 %, below 90 %"
    map_text = "the cosine of output map is 0.00, below 0.9"
    assert concern(Verification((output("y", 0.99, 95.0), output("map", 0.0012)))) == map_text
    assert concern(Verification((output("y", 0.5, 95.0),))) is None
    assert concern(Verification()) is None


def test_a_result_that_is_not_usable_is_said_to_be() -> None:
    likely = LikelyAgreement(10.0, 30.0, 60.0, 10.0, "made-up pictures")
    found = Verification((OutputDifference("y", 0.1, 0.99, 1.0, 70.0, likely_agreement=likely),))
    stated = "top-1 agreement is about 10 to 60 %, judged on made-up pictures, below 90 %"
    assert concern(found) == f"the result is not usable: {stated}"
    unknown = LikelyAgreement(0.0, 50.0, 100.0, judged_on="made-up samples")
    nothing = Verification((OutputDifference("y", 0.1, 0.99, 1.0, 100.0, likely_agreement=unknown),))
    text = "top-1 agreement is unknown: made-up samples cannot judge this model; give --data"
    assert concern(nothing) == text


def test_what_is_unknown_asks_for_samples_and_for_nothing_else(digits_trials: Trials) -> None:
    unknown = LikelyAgreement(0.0, 50.0, 100.0, judged_on="made-up samples")
    found = Verification((OutputDifference("y", 0.1, 0.99, 1.0, 100.0, likely_agreement=unknown),))
    report = Report("m", Size(2, 2, 2), Size(1, 1, 1), (Verified(found),))
    note = fidelity(report, Options(ratio=0.5), digits_trials)
    assert note is not None
    assert note.text == "top-1 agreement is unknown: made-up samples cannot judge this model; give --data"


def test_the_ratio_that_is_guessed_has_the_part_of_the_error_that_may_stay() -> None:
    def guessed(middle: float, ratio: float) -> str:
        likely = LikelyAgreement(0.0, middle, 99.0, 0.0, "made-up pictures")
        return guessed_ratio(
            Verification((OutputDifference("y", 0.1, 0.99, 1.0, 1.0, likely_agreement=likely),)), ratio
        )

    assert guessed(70.0, 0.3) == "--ratio 0.10 may be low enough, or "
    assert guessed(1.0, 0.3) == ""
    assert guessed(95.0, 0.3) == "ask for less, or "


class Negated:
    """The first channels stay, with the wrong sign: no ratio is safe."""

    name = "negated"

    def __call__(self, vectors: ChannelVectors, extent: Keep, *, seed: int, xp: object) -> MergeMap:
        kept = np.arange(vectors.count) < extent.count
        return MergeMap(np.where(kept, np.arange(len(kept)), -1), -1.0 * kept, 1.0 * kept)


def image_to_image() -> object:
    weights = random_weights(a=(8, 2, 3, 3), b=(2, 8, 3, 3))
    body = "c = Conv<pads = [1, 1, 1, 1]>(x, a) r = Relu(c) y = Conv<pads = [1, 1, 1, 1]>(r, b)"
    return graph(body, weights, inputs="float[N, 2, 6, 6] x", outputs="float[N, 2, 6, 6] y")


def test_a_low_cosine_is_warned_of_with_a_ratio_that_is_safe() -> None:
    _, report = compress(image_to_image(), ratio=0.85, reconstruct="off", method="random")  # type: ignore[arg-type]
    text = next(str(note) for note in report.of(Note) if note.level == "warning")
    start, _, safe = text.partition(", below 0.9; --ratio ")
    assert start.startswith("warning: the cosine of output y is 0.")
    ratio = float(safe.removesuffix(" reaches it"))
    _, better = compress(image_to_image(), ratio=ratio, reconstruct="off", method="random")  # type: ignore[arg-type]
    assert better.verification is not None
    assert concern(better.verification) is None


def test_where_no_ratio_is_safe_samples_are_asked_for() -> None:
    weights = random_weights(a=(20, 2, 3, 3), b=(2, 20, 3, 3))
    body = "c = Conv<pads = [1, 1, 1, 1]>(x, a) r = Relu(c) y = Conv<pads = [1, 1, 1, 1]>(r, b)"
    model = graph(body, weights, inputs="float[N, 2, 6, 6] x", outputs="float[N, 2, 6, 6] y")
    samples = {"x": np.random.default_rng(0).standard_normal((8, 2, 6, 6)).astype(np.float32)}
    ending = "no ratio of 0.05 or more reaches it"
    for data, end in ((None, f"{ending} on made-up samples; give --data to know better"), (samples, ending)):
        _, report = compress(model, ratio=0.6, reconstruct="off", method=Negated(), data=data, round_to=1)
        (warning,) = (str(note) for note in report.of(Note) if note.level == "warning")
        assert warning.endswith(end)


def test_a_demand_is_no_advice() -> None:
    options = {"ratio": 0.85, "reconstruct": "off", "method": "random", "min_cosine": 0.0}
    _, report = compress(image_to_image(), **options)  # type: ignore[arg-type]
    assert [note for note in report.of(Note) if "cosine" in note.text] == []


def timed(before: float, after: float, kept: int, spread: float = 0.01) -> Report:
    latency = Latency(before, after, spread, spread, 100, 1, 2)
    merged = Merged("Conv_0", ("Conv_0",), ("Conv_2",), 64, kept, 1, 1, MergeMap.identity(64))
    return Report("m", Size(2, 2, 2), Size(1, 1, 1), (merged, Verified(Verification((), latency))))


@pytest.fixture(scope="module")
def groups() -> list[object]:
    body = "c = Conv(x, a) r = Relu(c) y = Conv(r, b)"
    weights = random_weights(a=(64, 2, 3, 3), b=(3, 64, 3, 3))
    return list(groups_of(graph(body, weights, inputs="float[N, 2, 9, 9] x", outputs="float[N, 3, 5, 5] y")).values())


def test_a_slower_result_says_why_and_what_to_do(groups: list[object]) -> None:
    note = slowdown(timed(1.0, 2.13, 45), groups, Rounding.to(8))  # type: ignore[arg-type]
    assert note is not None
    assert str(note) == (
        "warning: the result is 2.1 x slower than the original: onnxruntime is fast at multiples of 8 "
        "channels here, and 1 of 1 merged groups have other counts (such as 45); leave out --round-to"
    )


def test_channel_counts_are_not_blamed_where_they_are_fast(groups: list[object]) -> None:
    note = slowdown(timed(1.0, 1.5, 48), groups, Rounding.to(16))  # type: ignore[arg-type]
    assert note is not None
    assert "though onnxruntime is fast at its channel counts" in note.text
    assert "--round-to" not in note.text


@pytest.mark.parametrize(("before", "after", "spread"), [(1.0, 0.5, 0.0), (1.0, 1.04, 0.0), (1.0, 1.5, 0.6)])
def test_chance_is_no_slowdown(before: float, after: float, spread: float, groups: list[object]) -> None:
    assert slowdown(timed(before, after, 45, spread), groups, EXACTLY) is None  # type: ignore[arg-type]


def test_nothing_is_said_where_nothing_was_timed(models_folder: Path) -> None:
    assert slowdown(Report("m", Size(2, 2, 2), Size(1, 1, 1), ()), (), EXACTLY) is None


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [(2.0, 1.43, "1.4 x faster"), (1.0, 2.1, "2.1 x slower"), (1.0, 1.02, "the same"), (0.0, 1.0, "")],
)
def test_latency_in_words(before: float, after: float, text: str) -> None:
    assert Latency(before, after, 0.1, 0.1, 9, 1, 2).change == text


def test_a_difference_that_may_be_chance_is_none() -> None:
    """The median of 13 times with quartiles 40 ms apart is known to 10 ms, that of a thousand to 1 ms."""
    assert Latency(52.8, 76.6, 34.0, 40.0, 13, 1, 2).change == "the same"
    assert Latency(52.8, 76.6, 34.0, 40.0, 1000, 1, 2).change == "1.5 x slower"


def test_a_latency_that_only_a_trial_met_is_warned_of() -> None:
    note = missed_latency(timed(1.0, 0.9, 45), 0.7)
    assert note is not None
    assert note.level == "warning"
    assert note.text.startswith(
        "the result takes 0.90 of the original's latency, and a trial met --target-latency 0.7;"
    )


@pytest.mark.parametrize(("after", "spread", "wanted"), [(0.72, 0.0, 0.7), (0.9, 0.5, 0.7), (0.9, 0.0, None)])
def test_chance_misses_no_latency(after: float, spread: float, wanted: float | None) -> None:
    assert missed_latency(timed(1.0, after, 45, spread), wanted) is None
