"""Find residual blocks that can go as a whole: what is added to a stream, and is computed from nothing but the stream.

    y = x + f(x)        x: the shortcut, f: the block; without it y = x + c, c the mean of f(x)

All nodes of f serve this sum alone. Where both sides of a sum are layers of their own (a downsampling shortcut, a merge
of two scales) no side can go: nothing would be left that looks like y.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx_ir as ir

from onnx_tropnnc.analysis.groups import ChannelGroup
from onnx_tropnnc.graph.bodies import computed_inputs
from onnx_tropnnc.graph.constants import array_of, constant_tensor, label, name_of
from onnx_tropnnc.graph.layers import output_channels
from onnx_tropnnc.graph.linear_layers import solving_refusal
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.graph.uses import only_reader

__all__ = ["ResidualBlock", "groups_inside", "residual_blocks", "stream_of"]


@dataclass(frozen=True, eq=False)
class ResidualBlock:
    """A block, the sum that it is added in, and the layer that makes what is added."""

    total: ir.Node
    slot: int
    """At which input of the sum the block's output stands."""
    last: ir.Node
    nodes: frozenset[ir.Node]

    @property
    def name(self) -> str:
        """Return what messages call the block: the name of its sum."""
        return label(self.total)

    def matches(self, patterns: Sequence[str]) -> bool:
        """Return whether the name of a node of the block matches one of the patterns (as in a shell)."""
        return any(fnmatchcase(label(node), pattern) for node in self.nodes for pattern in patterns)

    @property
    def output(self) -> ir.Value:
        """Return what the block adds to the stream."""
        value = self.total.inputs[self.slot]
        assert value is not None
        return value


def residual_blocks(graph: ir.Graph, shapes: Shapes) -> tuple[ResidualBlock, ...]:
    """Return the blocks of the graph itself (not of bodies) in topological order of their sums."""
    return tuple(
        block
        for node in graph
        if node.op_type == "Add" and node.domain in ("", "ai.onnx")
        for block in _blocks_of(node, shapes)
    )


def _blocks_of(total: ir.Node, shapes: Shapes) -> Iterator[ResidualBlock]:
    """Yield the block that is added in this sum, if there is one."""
    for slot in range(2):
        branch, shortcut = total.inputs[slot], total.inputs[1 - slot]
        if branch is None or shortcut is None or branch is shortcut:
            continue
        shape = shapes.get(name_of(branch))
        if shape is None or shapes.get(name_of(shortcut)) != shape or shapes.get(name_of(total.outputs[0])) != shape:
            continue
        nodes = _serving(total, slot)
        last = next((n for n in nodes if solving_refusal(n) is None and stream_of(n) is total.outputs[0]), None)
        if last is not None and any(shortcut in computed_inputs(node) for node in nodes):
            yield ResidualBlock(total, slot, last, nodes)


def _serving(total: ir.Node, slot: int) -> frozenset[ir.Node]:
    """Return the nodes whose results go nowhere but into this input of the sum."""
    found = set[ir.Node]()
    waiting = [value.producer() for value in total.inputs[slot : slot + 1] if value is not None]
    while waiting:
        maker = waiting.pop()
        if maker is None or maker in found or maker.graph is not total.graph:
            continue
        uses = [use for value in maker.outputs for use in value.uses()]
        leaves = any(value.is_graph_output() for value in maker.outputs)
        if not leaves and all(use.node in found or (use.node is total and use.idx == slot) for use in uses):
            found.add(maker)
            waiting.extend(value.producer() for value in computed_inputs(maker))
    return frozenset(found)


def groups_inside(block: ResidualBlock, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """Return the groups whose layers are all in the block."""
    return [group for group in groups if all(place.use.node in block.nodes for place in group.places)]


def stream_of(node: ir.Node) -> ir.Value:
    """Return the output of the residual Add that this node's output reaches unchanged, else its own output."""
    own = value = next(value for value in node.outputs if name_of(value))
    while (reader := only_reader(value)) is not None:
        if reader.op_type == "Add":
            if all(constant_tensor(side) is None for side in reader.inputs):
                return reader.outputs[0]
        elif reader.op_type not in ("Identity", "Dropout") and not _divides_rows(reader, node):
            return own
        own = value = reader.outputs[0]
    return own


def _divides_rows(reshape: ir.Node, layer: ir.Node) -> bool:
    """Return whether a Reshape divides the rows of a Gemm into samples and words, and leaves its channels together."""
    if reshape.op_type != "Reshape" or layer.op_type != "Gemm" or len(reshape.inputs) < 2:
        return False
    target, maker = array_of(reshape.inputs[1]), None if reshape.inputs[1] is None else reshape.inputs[1].producer()
    if target is None and maker is not None and maker.op_type == "Concat":
        target = array_of(maker.inputs[-1])
    return target is not None and target.size > 0 and int(target.reshape(-1)[-1]) == output_channels(layer)
