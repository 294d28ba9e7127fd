"""A latency budget: a first share, a measured correction, and bisection where these miss."""

from dataclasses import replace
from pathlib import Path

import pytest
from graphs import graph, random_weights

from onnx_tropnnc import compress
from onnx_tropnnc.bisection import Refused
from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.errors import NotRunnable, OptionError
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.options import Options
from onnx_tropnnc.running.latency import Latency
from onnx_tropnnc.searching.latency_budget import within_latency

MODELS = Path(__file__).parent.parent / "models"
ASKED = Options(target_latency=0.5)


def sized(options: Options) -> Model | Refused:
    """Return a model named after the share that was asked for; below 20 % there is none."""
    share = options.target_macs or 0.0
    if share < 0.2:
        return Refused("the budget cannot be reached")
    return replace(load(graph("y = Relu(x)", inputs="float[N, 3] x")), name=str(share))


def timed(model: Model) -> Latency:
    """Return a latency: a tenth of the time does not shrink, and the rest shrinks in proportion."""
    return Latency(10.0, 10.0 * (0.1 + 0.9 * float(model.name)), 0.0, 0.0, 1, 1, 1)


@pytest.mark.parametrize(("wanted", "share", "trials"), [(0.5, 0.43, 2), (1.0, 1.0, 1), (0.3, 0.208, 2)])
def test_one_correction_finds_the_share_that_is_fast_enough(wanted: float, share: float, trials: int) -> None:
    told: list[str] = []
    found, note = within_latency(replace(ASKED, target_latency=wanted), sized, timed, told.append)
    assert found == replace(ASKED, target_latency=None, target_macs=share)
    assert told[0] == f"try {100 * wanted:.1f} % of the layers' time"
    assert len(told) == trials
    took = 0.1 + 0.9 * share
    assert f"--target-latency {wanted:g} was met in a trial that took {took:.2f} of the original's time" in note.text


def test_bisection_finds_the_share_where_times_follow_no_line() -> None:
    """Below 30 % the model is four times as fast, so that no correction of what half of it takes comes near."""

    def falls(model: Model) -> Latency:
        return Latency(10.0, 8.0 if float(model.name) > 0.3 else 2.0, 0.0, 0.0, 1, 1, 1)

    assert within_latency(ASKED, sized, falls, lambda _: None)[0].target_macs == 0.3


def test_times_within_the_noise_of_measurements_are_not_searched_further() -> None:
    """The first share is far off, so that bisection begins; it ends at the first time that is near enough."""
    told: list[str] = []

    def noisy(model: Model) -> Latency:
        return Latency(10.0, 10.0 if float(model.name) >= 0.5 else 4.8 + float(model.name) / 100, 0.0, 0.0, 1, 1, 1)

    options, _ = within_latency(ASKED, sized, noisy, told.append)
    assert told == ["try 50.0 % of the layers' time", "try 25.0 % of the layers' time"]
    assert options.target_macs == 0.25


def test_a_budget_out_of_reach_says_what_was_reached() -> None:
    with pytest.raises(OptionError, match=r"^target_latency=0.2 cannot be reached: .* was 0.28"):
        within_latency(replace(ASKED, target_latency=0.2), sized, timed, lambda _: None)


def test_what_cannot_be_timed_is_refused() -> None:
    def fails(_: Model) -> Latency:
        raise NotRunnable("onnxruntime is not installed")

    with pytest.raises(OptionError, match="nothing can be timed here: onnxruntime is not installed"):
        within_latency(ASKED, sized, fails, lambda _: None)


def test_a_real_model_is_measured() -> None:
    model = MODELS / "digits_resnet_bn.onnx"
    _, report = compress(model, target_latency=1.0, reconstruct="off")
    assert report.after.parameters <= report.before.parameters
    with pytest.raises(OptionError, match="cannot be reached"):
        compress(model, target_latency=0.001, reconstruct="off")


def test_channels_go_where_they_take_time() -> None:
    """Of two groups alike, one is made to count ten times: a budget of half the time takes its channels."""
    weights = random_weights(w=(8, 8), k=(8,), u=(8, 8), l=(8,), v=(8, 8), m=(8,))
    text = "a = Gemm(x, w, k) b = Relu(a) c = Gemm(b, u, l) d = Relu(c) y = Gemm(d, v, m)"
    model = load(graph(text, weights, inputs="float[N, 8] x", outputs="float[N, 8] y"))
    samples = samples_for(model, count=64)
    options = Options(target_macs=0.6, round_to=1)
    counts = {}
    for slow in ("a", "y"):
        decider = Decider(model, samples, size_of(model, shapes_of(model)), {"a": 1, "c": 1, "y": 1, slow: 20})
        maps = decider.decide(options).maps or {}
        counts[slow] = [
            maps[group.name].size if group.name in maps else 8 for group in decider.groups if not group.pinned
        ]
    assert counts["a"][0] < counts["a"][1]
    assert counts["y"][0] > counts["y"][1]
