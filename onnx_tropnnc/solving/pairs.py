"""A layer and the one that makes what it reads, with nothing but elementwise functions between them.

    producer -> activations -> consumer          each read by the next one only

Such a pair can be refitted as a whole (refitting.py): whatever the producer makes, nobody else sees it, and nobody else
uses its weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.graph.linear_layers import LinearLayer, solving_refusal
from onnx_tropnnc.solving.activation_slopes import Activation, activation_of

__all__ = ["Pair", "pair_of"]


@dataclass(frozen=True, eq=False)
class Pair:
    """The producer, and the functions between it and its consumer, first one first."""

    producer: LinearLayer
    activations: tuple[Activation, ...]
    nodes: tuple[ir.Node, ...]
    """All that stands before the consumer, in order."""


def pair_of(consumer: LinearLayer) -> Pair | None:
    """The pair that the consumer belongs to, or None where what it reads is made in another way."""
    value, found = consumer.data, list[tuple[ir.Node, Activation]]()
    while (maker := value.producer()) is not None and _private(value):
        activation = activation_of(maker)
        if activation is None:
            producer = _producer(value, maker)
            return None if producer is None or not _alike(producer, consumer) else _pair(producer, maker, found[::-1])
        found.append((maker, activation))
        source = maker.inputs[0]
        assert source is not None
        value = source
    return None


def _pair(producer: LinearLayer, maker: ir.Node, behind: Sequence[tuple[ir.Node, Activation]]) -> Pair:
    """`maker` is the producer, or the Add that holds its bias."""
    layer = dict.fromkeys((producer.node, maker))
    return Pair(producer, tuple(activation for _, activation in behind), (*layer, *(node for node, _ in behind)))


def _private(value: ir.Value) -> bool:
    """Whether one node reads it, and nobody outside."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def _producer(value: ir.Value, maker: ir.Node) -> LinearLayer | None:
    """The layer that makes the value, its bias included."""
    makers = (maker, *(side.producer() for side in maker.inputs if side is not None and maker.op_type == "Add"))
    for node in makers:
        if node is not None and solving_refusal(node) is None:
            layer = LinearLayer(node)
            weight = node.inputs[layer.slot]
            shared = weight is not None and len(weight.uses()) > 1
            return layer if layer.biased is value and not shared else None
    return None


def _alike(producer: LinearLayer, consumer: LinearLayer) -> bool:
    """Whether the producer's output channels are the consumer's input channels, one matrix each."""
    ungrouped = producer.groups == consumer.groups == 1
    same_kind = producer.is_convolution == consumer.is_convolution
    return ungrouped and same_kind and producer.channel_axis == consumer.channel_axis
