"""Find pairs: a layer and the one that makes its input, with nothing but elementwise functions between them.

    producer -> activations -> consumer          each is read by the next one only

Such a pair can be refitted as a whole (refits/): no other node reads what the producer makes, or its weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.graph.linear_layers import LinearLayer, solving_refusal
from onnx_tropnnc.solving.activation_graphs import activation_graph
from onnx_tropnnc.solving.activation_slopes import Activation, activation_of

__all__ = ["Pair", "pair_of"]

_Step = tuple[tuple[ir.Node, ...], Activation]
"""The nodes of one activation, and their function."""


@dataclass(frozen=True, eq=False)
class Pair:
    """The producer, and the functions between it and its consumer, first one first."""

    producer: LinearLayer
    activations: tuple[Activation, ...]
    nodes: tuple[ir.Node, ...]
    """All nodes from the producer up to the consumer, which is not among them, in order."""


def pair_of(consumer: LinearLayer) -> Pair | None:
    """Return the pair that the consumer belongs to, or None where its input is made in another way."""
    value, found = consumer.data, list[_Step]()
    while (maker := value.producer()) is not None and _read_once(value, found):
        activation = activation_of(maker)
        if activation is not None:
            found.append(((maker,), activation))
            source = maker.inputs[0]
        elif (graph := activation_graph(value)) is not None:
            found.append((graph.nodes, graph.activation))
            source = graph.source
        else:
            producer = _producer(value, maker)
            if producer is None or not _alike(producer, consumer):
                return None
            nodes = (node for nodes, _ in found[::-1] for node in nodes)
            # the producer's node, and the Add that holds its bias where it has one there
            return Pair(producer, tuple(a for _, a in found[::-1]), (*dict.fromkeys((producer.node, maker)), *nodes))
        assert source is not None
        value = source
    return None


def _read_once(value: ir.Value, found: Sequence[_Step]) -> bool:
    """Return whether only one node reads the value, or only the nodes of the activation that was found behind it."""
    readers = {use.node for use in value.uses()}
    return not value.is_graph_output() and (len(value.uses()) == 1 or bool(found and readers <= set(found[-1][0])))


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
