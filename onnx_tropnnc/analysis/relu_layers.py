"""Layers as the paper draws them: one linear map, a Relu, and what reads it.

    x -> producer [-> Add of a bias] -> Relu -> consumers

Theorem 11 speaks of such layers and of no others: a pool, for one, lets each channel look at another place of x.
"""

import onnx_ir as ir

from onnx_tropnnc.analysis.channels import ChannelGroup

__all__ = ["is_relu_layer"]


def is_relu_layer(group: ChannelGroup) -> bool:
    """Return whether a Relu and nothing else stands between the group's only producer and its consumers."""
    producers = group.of_kind("producer")
    if len(producers) != 1:
        return False
    value = producers[0].use.node.outputs[0]
    additions = {place.use.node for place in group.of_kind("bias")}
    while (reader := _only_reader(value)) in additions and reader is not None:
        value = reader.outputs[0]
    if reader is None or reader.op_type != "Relu" or reader.outputs[0].is_graph_output():
        return False
    consumers = {place.use.node for place in group.of_kind("consumer")}
    return {use.node for use in reader.outputs[0].uses()} <= consumers


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
