"""Measure what a multiply-accumulate costs in each layer: by how much time the layer gets shorter with its channels.

    rate = (time with all channels - time with about half of them) / the multiply-accumulates that half saves

A depthwise convolution takes several times as long for a multiply-accumulate as a plain one, so that channels are worth
more in some layers than their multiply-accumulates say. Each layer is run as a model of its own under ONNX Runtime's
profiler. Only what its kernel takes is counted: tensors are reordered around a single layer, but hardly within a model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx_ir as ir

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.constants import dims_of, name_of
from onnx_tropnnc.graph.layers import is_layer, weight_slot
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.graph.sizes import node_macs
from onnx_tropnnc.running.profiles import profile_events
from onnx_tropnnc.running.sessions import Runner

__all__ = ["layer_rates"]

# Runs of each layer: the median of eleven is steady to a few percent, and forty different layers take a few seconds.
RUNS = 11

# The smaller layer has whole blocks of channels, where it can: onnxruntime computes others as if the block were full.
BLOCK = 16

# Rates are whole femtoseconds, so that sums of them are exact whatever their order.
UNIT = 1e15

# A layer whose time does not fall with its channels is counted with this share of the usual rate: what stands beside it
# (activations, additions) gets shorter all the same.
LEAST = 0.05

# The profiler counts whole microseconds: a difference of fewer than this many is chance.
RESOLUTION = 3e-6


@dataclass(frozen=True)
class _Layer:
    """What the time of a layer depends on."""

    op_type: str
    attributes: tuple[ir.Attr, ...]
    source: tuple[int, ...]
    """The shape of what it reads."""
    weight: tuple[int, ...]
    opset: int

    @property
    def key(self) -> tuple[object, ...]:
        """Return what is equal for layers that take equally long."""
        return self.op_type, str(self.attributes), self.source, self.weight


def layer_rates(model: Model, shapes: Shapes) -> Mapping[str, int]:
    """Return femtoseconds for each multiply-accumulate, by the name of what the layer makes.

    Layers that cannot be run by themselves, or are too short to be timed, get the usual rate.

    Raises:
        NotRunnable: no layer can be timed.
    """
    macs = {node: count for node in model.graph if (count := node_macs(node, shapes))}
    known: dict[tuple[object, ...], float | None] = {}
    found: dict[ir.Node, float] = {}
    for node in macs:
        layer = _layer(node, shapes, model.opset) if is_layer(node) else None
        if layer is None:
            continue
        if layer.key not in known:
            known[layer.key] = _seconds_saved(layer)
        saved = known[layer.key]
        if saved is not None:
            found[node] = saved / macs[node]
    if not found:
        raise NotRunnable("no layer of the model can be timed by itself")
    usual = float(np.median(list(found.values())))
    return {name_of(n.outputs[0]): round(UNIT * max(found.get(n, usual), LEAST * usual)) for n in macs}


def _seconds_saved(layer: _Layer) -> float | None:
    """Return how many seconds the layer's channels would take if each cost what the second half of them does."""
    smaller = _halved(layer)
    if smaller is None:
        return None
    try:
        whole, part = _kernel_seconds(layer), _kernel_seconds(smaller)
    except NotRunnable:
        return None
    share = math.prod(smaller.weight) / math.prod(layer.weight)
    return None if whole < RESOLUTION or share == 1.0 else max(0.0, whole - part) / (1.0 - share)


def _layer(node: ir.Node, shapes: Shapes, opset: int) -> _Layer | None:
    """Return what is to be timed; None where a size is not known, or the weight comes first."""
    weight, data = dims_of(node.inputs[1]), node.inputs[0]
    source = None if data is None else shapes.get(name_of(data))
    if weight_slot(node) == 0 or weight is None or source is None or None in source:
        return None
    return _Layer(node.op_type, tuple(node.attributes.values()), tuple(int(d or 0) for d in source), weight, opset)


def _halved(layer: _Layer) -> _Layer | None:
    """Return the layer with about half of the channels that it reads and makes; None where groups leave none out."""
    source, weight, attributes = list(layer.source), list(layer.weight), {a.name: a for a in layer.attributes}
    group = attributes["group"].as_int() if "group" in attributes else 1
    if layer.op_type in ("Conv", "ConvTranspose"):
        if group > 1 and group != source[1]:
            return None
        source[1] = _half(source[1])
        if group > 1:
            weight[0] = source[1] * (weight[0] // group)
            attributes["group"] = ir.AttrInt64("group", source[1])
        else:
            weight[0], weight[1] = _half(weight[0]), _half(weight[1])
    else:
        if "transA" in attributes and attributes["transA"].as_int():
            return None
        source[-1] = _half(source[-1])
        weight[-2:] = [_half(size) for size in weight[-2:]]
    return replace(layer, source=tuple(source), weight=tuple(weight), attributes=tuple(attributes.values()))


def _half(channels: int) -> int:
    if channels <= 2 * BLOCK:
        return max(1, channels // 2)
    return -(-channels // (2 * BLOCK)) * BLOCK


def _kernel_seconds(layer: _Layer) -> float:
    """Return the median time that the layer's own kernel takes in one run, on one thread."""
    feed = {"x": np.ones(layer.source, np.float32)}

    def work(runner: Runner) -> None:
        for _ in range(RUNS):
            runner.run(feed)

    times = [
        event["dur"]
        for event in profile_events(_proto(layer), work, threads=1)
        if event.get("cat") == "Node" and "Reorder" not in event["args"].get("op_name", "Reorder")
    ]
    return 1e-6 * float(np.median(times)) if times else 0.0


def _proto(layer: _Layer) -> onnx.ModelProto:
    """Return the layer as a model whose weight is a constant, which onnxruntime lays out as it does in the whole."""
    weight = onnx.numpy_helper.from_array(np.full(layer.weight, 0.01, np.float32), "w")
    node = onnx.NodeProto(op_type=layer.op_type, input=["x", "w"], output=["y"], name="layer")
    node.attribute.extend(ir.serde.serialize_attribute(attribute) for attribute in layer.attributes)
    graph = onnx.GraphProto(name="layer", node=[node], initializer=[weight])
    graph.input.append(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, layer.source))
    graph.output.append(onnx.ValueInfoProto(name="y"))
    opset = onnx.helper.make_opsetid("", layer.opset)
    return onnx.ModelProto(ir_version=8, graph=graph, opset_import=[opset])
