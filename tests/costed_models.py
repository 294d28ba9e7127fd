"""Small models with several groups of channels, and what they cost."""

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
from graphs import graph, random_weights

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.analysis.costs import Costs, Measure, Unit
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.merging.merge_map import keep_channels
from onnx_tropnnc.passes import GroupFilter, MergeChannels, RefreshShapes

MEASURES: tuple[Measure, ...] = ("parameters", "macs")


def chain() -> onnx.ModelProto:
    """Return a network with two hidden layers, 8 and 6: parameters 5*8 + 8 + 8*6 + 6*3."""
    weights = random_weights(w=(5, 8), b=(8,), v=(8, 6), u=(6, 3))
    body = "a = MatMul(x, w)  c = Add(a, b)  h = Relu(c)  d = MatMul(h, v)  g = Relu(d)  y = MatMul(g, u)"
    return graph(body, weights, inputs="float[N, 5] x")


def network() -> onnx.ModelProto:
    """Convolutions, a depthwise one, a residual tie, Concat, Flatten, shared and per-channel parameters."""
    weights = random_weights(
        w=(8, 3, 3, 3),
        b=(8,),
        d=(8, 1, 3, 3),
        e=(8,),
        p=(6, 8, 1, 1),
        q=(6, 8, 1, 1),
        s=(8, 1, 1),
        t=(4, 12, 1, 1),
        f=(64, 3),
    )
    body = """
        a = Conv <pads: ints = [1, 1, 1, 1]> (x, w, b)  h = Clip(a)
        k = Conv <group: int = 8, pads: ints = [1, 1, 1, 1]> (h, d, e)  l = Mul(k, s)  r = Add(h, l)
        m = Conv(r, p)  n = Conv(r, q)  o = Concat <axis: int = 1> (m, n)  i = Relu(o)
        c = Conv <strides: ints = [2, 2]> (i, t)  j = Relu(c)  z = Flatten(j)  y = MatMul(z, f)
    """
    return graph(body, weights, inputs="float[N, 3, 8, 8] x", outputs="float[N, 3] y")


@cache
def costs_of(make: Callable[[], onnx.ModelProto], measure: Measure) -> tuple[Model, Costs]:
    model = load(make())
    shapes = shapes_of(model)
    rng = np.random.default_rng(0)
    units = [Unit(g, rng.permutation(g.channels)) for g in find_channel_groups(model, shapes) if g.pinned is None]
    return model, Costs(model, shapes, units, measure)


def measured(model: Model, costs: Costs, counts: tuple[int, ...]) -> int:
    """By rewriting the model and counting what is there."""
    plan = {
        unit.group.name: keep_channels(unit.order[:count], unit.group.channels)
        for unit, count in zip(costs.units, counts, strict=True)
        if count < unit.size
    }
    smaller = model.clone()
    MergeChannels(plan=plan, group_filter=GroupFilter(ties="merge"))(smaller)
    RefreshShapes()(smaller)
    size = size_of(smaller, shapes_of(smaller))
    return size.parameters if costs.measure == "parameters" else size.macs or 0
