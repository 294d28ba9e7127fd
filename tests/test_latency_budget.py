"""A latency budget: bisection over shares of the multiply-accumulates."""

from dataclasses import replace
from pathlib import Path

import pytest

from onnx_tropnnc import compress
from onnx_tropnnc.bisection import Refused
from onnx_tropnnc.errors import NotRunnable, OptionError
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.options import Options
from onnx_tropnnc.running.latency import Latency
from onnx_tropnnc.searching.latency_budget import within_latency
from tests.graphs import graph

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


@pytest.mark.parametrize(("wanted", "share"), [(0.5, 0.44), (1.0, 1.0), (0.3, 0.22)])
def test_the_largest_share_that_is_fast_enough_is_found(wanted: float, share: float) -> None:
    told: list[str] = []
    found = within_latency(replace(ASKED, target_latency=wanted), sized, timed, told.append)
    assert found == replace(ASKED, target_latency=None, target_macs=share)
    assert all("of the multiply-accumulates take" in line for line in told)


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
