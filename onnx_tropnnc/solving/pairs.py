"""Find pairs: a layer and the one that makes its input, with nothing but elementwise functions between them.

    producer -> activations -> consumer          each is read by the next one only

Such a pair can be refitted as a whole (refitting.py): no other node reads what the producer makes, or its weights.
"""

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
    """All nodes from the producer up to the consumer, which is not among them, in order."""


def pair_of(consumer: LinearLayer) -> Pair | None:
    """Return the pair that the consumer belongs to, or None where its input is made in another way."""
    value, found = consumer.data, list[tuple[ir.Node, Activation]]()
    while (maker := value.producer()) is not None and len(value.uses()) == 1 and not value.is_graph_output():
        activation = activation_of(maker)
        if activation is None:
            producer = _producer(value, maker)
            if producer is None or not _alike(producer, consumer):
                return None
            nodes, between = zip(*found[::-1], strict=True) if found else ((), ())
            # the producer's node, and the Add that holds its bias where it has one there
            return Pair(producer, between, (*dict.fromkeys((producer.node, maker)), *nodes))
        found.append((maker, activation))
        source = maker.inputs[0]
        assert source is not None
        value = source
    return None


def _producer(value: ir.Value, maker: ir.Node) -> LinearLayer | None:
    """Return the layer that makes the value, its bias included, if nothing else reads the layer's weight."""
    # a MatMul's bias stands in the Add behind it, so that the maker is either of the two
    makers = (maker, *(side.producer() for side in maker.inputs if side is not None and maker.op_type == "Add"))
    for node in makers:
        if node is not None and solving_refusal(node) is None:
            layer = LinearLayer(node)
            weight = node.inputs[layer.slot]
            shared = weight is not None and len(weight.uses()) > 1
            return layer if layer.biased is value and not shared else None
    return None


def _alike(producer: LinearLayer, consumer: LinearLayer) -> bool:
    """Return whether the producer's output channels are the consumer's input channels, and each has one matrix."""
    ungrouped = producer.groups == consumer.groups == 1
    same_kind = producer.is_convolution == consumer.is_convolution
    return ungrouped and same_kind and producer.channel_axis == consumer.channel_axis
