"""What a model costs at any counts of channels: what the model costs that is rewritten so."""

import re

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from costed_models import MEASURES, chain, costs_of, measured, network
from graphs import graph, random_weights

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.analysis.costs import Costs, Measure, Unit
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of


@pytest.mark.parametrize(("measure", "whole", "smaller"), [("parameters", 114, 36), ("macs", 106, 33)])
def test_a_weight_between_two_groups_shrinks_on_both_axes(measure: Measure, whole: int, smaller: int) -> None:
    _, costs = costs_of(chain, measure)
    assert costs.full == (8, 6)
    assert costs.total((8, 6)) == whole
    assert costs.total((3, 3)) == smaller
    assert costs.saved((8, 6), 0, 4) == whole - costs.total((4, 6))
    assert costs.saved((4, 6), 1, 3) == costs.total((4, 6)) - costs.total((4, 3))


@pytest.mark.parametrize("measure", MEASURES)
def test_costs_are_those_of_the_rewritten_model(measure: Measure) -> None:
    model, costs = costs_of(network, measure)
    assert costs.full == (8, 6, 6, 4)
    assert costs.total(costs.full) == measured(model, costs, costs.full)
    for counts in ((3, 6, 6, 4), (8, 2, 6, 4), (8, 6, 1, 2), (5, 3, 4, 1), (1, 1, 1, 1)):
        assert costs.total(counts) == measured(model, costs, counts)


@hypothesis.given(data=st.data())
def test_what_a_step_saves_is_the_difference_of_totals(data: st.DataObject) -> None:
    _, costs = costs_of(network, data.draw(st.sampled_from(MEASURES)))
    counts = tuple(data.draw(st.integers(1, size)) for size in costs.full)
    unit = data.draw(st.integers(0, len(counts) - 1))
    kept = data.draw(st.integers(1, counts[unit]))
    after = (*counts[:unit], kept, *counts[unit + 1 :])
    assert costs.saved(counts, unit, kept) == costs.total(counts) - costs.total(after)


def test_channels_that_stand_more_often_cost_more() -> None:
    """Concat of a tensor and its first half: channels 0 and 1 stand twice in what reads it."""
    weights = random_weights(w=(3, 4), v=(6, 5)) | {"n": np.array([2, 2], np.int64)}
    body = "a = MatMul(x, w)  h = Relu(a)  l, r = Split <axis: int = 1> (h, n)  "
    body += "c = Concat <axis: int = 1> (h, l)  y = MatMul(c, v)"
    model = load(graph(body, weights, inputs="float[N, 3] x", outputs="float[N, 5] y"))
    shapes = shapes_of(model)
    (group,) = (g for g in find_channel_groups(model, shapes) if g.pinned is None)
    costs = Costs(model, shapes, [Unit(group, np.array([3, 0, 1, 2]))], "parameters")
    assert [costs.total((k,)) for k in (0, 1, 2, 3, 4)] == [0, 3 + 5, 6 + 15, 9 + 25, 12 + 30]


SHARED = {
    "two groups": "a = MatMul(x, w)  h = Mul(a, s)  b = MatMul(h, v)  k = Mul(b, s)  y = MatMul(k, u)",
    "one normalization": (
        "a = MatMul(x, w)  r = Relu(a)  h = BatchNormalization(r, s, t, m, s)  b = MatMul(h, v)  y = MatMul(b, u)"
    ),
}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("case", SHARED)
def test_a_parameter_that_is_read_twice_is_counted_twice(case: str, measure: Measure) -> None:
    """When channels go, each reader has its own."""
    weights = random_weights(w=(3, 4), v=(4, 4), u=(4, 2), t=(4,), m=(4,)) | {"s": np.arange(1, 5, dtype=np.float32)}
    read = {name: array for name, array in weights.items() if re.search(rf"\b{name}\b", SHARED[case])}
    model = load(graph(SHARED[case], read, inputs="float[N, 3] x", outputs="float[N, 2] y"))
    shapes = shapes_of(model)
    units = [Unit(g, np.arange(4)) for g in find_channel_groups(model, shapes) if g.pinned is None]
    costs = Costs(model, shapes, units, measure)
    for counts in ((1, 1), (2, 3), (3, 1)):
        assert costs.total(counts) == measured(model, costs, counts)
    copy = 4 if measure == "parameters" else 0
    assert costs.total((4, 4)) == measured(model, costs, (4, 4)) + copy


def test_unknown_shapes_are_named() -> None:
    weights = random_weights(w=(4, 3, 1, 1), v=(2, 4, 1, 1))
    proto = graph(
        "a = Conv(x, w)  h = Relu(a)  y = Conv(h, v)",
        weights,
        inputs="float[N, 3, H, W] x",
        outputs="float[N, 2, H, W] y",
    )
    model = load(proto)
    shapes = {
        name: tuple(None if axis > 1 else d for axis, d in enumerate(dims)) for name, dims in shapes_of(model).items()
    }
    units = [Unit(g, np.arange(4)) for g in find_channel_groups(model, shapes) if g.pinned is None]
    with pytest.raises(OptionError, match=r"the shape of a \(Conv_0\) is not known; give input_shape="):
        Costs(model, shapes, units, "macs")
    assert Costs(model, shapes, units, "parameters").total((2,)) == 6 + 4
