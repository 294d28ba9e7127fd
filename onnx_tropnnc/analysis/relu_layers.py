"""Recognise layers as the paper defines them: one linear map, a Relu, and the layers that read it.

    x -> producer [-> Add of a bias] -> Relu -> consumers

Theorem 11 of the paper holds for such layers only. With a max pool, for instance, each channel could read another place
of x.
"""

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.graph.uses import only_reader

__all__ = ["is_relu_layer"]


def is_relu_layer(group: ChannelGroup) -> bool:
    """Return whether a Relu and nothing else stands between the group's only producer and its consumers."""
    producers = group.of_kind("producer")
    if len(producers) != 1:
        return False
    value = producers[0].use.node.outputs[0]
    # A MatMul has its bias in an Add behind it, which belongs to the linear map.
    additions = {place.use.node for place in group.of_kind("bias")}
    while (reader := only_reader(value)) in additions and reader is not None:
        value = reader.outputs[0]
    if reader is None or reader.op_type != "Relu" or reader.outputs[0].is_graph_output():
        return False
    consumers = {place.use.node for place in group.of_kind("consumer")}
    return {use.node for use in reader.outputs[0].uses()} <= consumers
