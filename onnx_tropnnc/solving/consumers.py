"""Decide which layers of a merged model are solved, in which order, and for which targets; nothing is changed here.

A merged model (`compressed`) has the nodes of its original (`reference`), under the same names of values. Every layer
that reads a merged group, and every later one that reads what such layers changed, is solved so that it makes again
what it made in the original:

    target = M (y + errors of the other branches)      y: the original layer's output, bias included

M is the row map where the layer's own channels are merged too (row_maps.py). Where a tensor of another branch is added
to y later, the last layer that can still do so makes up for that tensor's error: a layer whose other branch depends on
no layer that is still to be solved.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir
from scipy.sparse import csr_array

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.graph.bodies import computed_inputs
from onnx_tropnnc.graph.constants import label, name_of
from onnx_tropnnc.graph.linear_layers import LinearLayer, solving_refusal
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.running.activations import Stop
from onnx_tropnnc.solving.pairs import Pair, pair_of
from onnx_tropnnc.solving.residuals import Partner, partners
from onnx_tropnnc.solving.row_maps import output_maps

__all__ = ["COMPRESSED", "REFERENCE", "Consumer", "Passed", "find_consumers"]

REFERENCE, COMPRESSED = "reference", "compressed"


@dataclass(frozen=True)
class Passed:
    """A consumer that keeps its merged weights, and the reason."""

    node: str
    reason: str


@dataclass(frozen=True, eq=False)
class Consumer:
    """A layer to solve.

    Attributes:
        original: the layer in the reference.
        layer: the same layer in the compressed model.
        row_map: M; None where the layer's own channels stay as they are.
        partners: the tensors added to its output later whose errors this layer makes up for.
        pair: the layer of the compressed model together with the one that makes its input; None where they are no pair.
    """

    original: LinearLayer
    layer: LinearLayer
    row_map: csr_array | None
    partners: tuple[Partner, ...]
    pair: Pair | None

    @property
    def name(self) -> str:
        """Return the layer's name in messages."""
        return label(self.original.node)

    @property
    def target(self) -> str:
        """Return the name of the tensor that the layer makes."""
        return name_of(self.original.output)

    @property
    def source(self) -> str:
        """Return the name of the tensor that the layer reads."""
        return name_of(self.layer.data)

    @property
    def reads(self) -> str:
        """Return which tensor to run the model for: what a pair's producer reads, else what the layer itself reads."""
        return self.source if self.pair is None else name_of(self.pair.producer.data)

    @property
    def stop(self) -> Stop:
        """Return the stop at which all tensors are at hand that solving the layer needs."""
        others = tuple(name_of(partner.value) for partner in self.partners)
        return Stop(self.name, {REFERENCE: (self.target, *others), COMPRESSED: (self.reads, *others)})


def find_consumers(
    reference: Model,
    compressed: Model,
    groups: Collection[ChannelGroup],
    merges: Mapping[str, MergeMap],
    shapes: Shapes,
    *,
    pairs: bool = False,
) -> tuple[Consumer | Passed, ...]:
    """Return every layer that reads a merged group, and those behind them, in topological order.

    Args:
        reference: the model before the merge.
        compressed: the model after it.
        groups: the channel groups of the reference.
        merges: the merge maps, by the groups' names.
        shapes: of the reference's tensors.
        pairs: whether to look for each consumer's pair.
    """
    readers = {p.use.node for group in groups if group.name in merges for p in group.of_kind("consumer")}
    twins = {name_of(value): node for node in compressed.graph for value in node.outputs}
    maps = output_maps(groups, merges)
    behind = _behind(reference, readers)
    nodes = [node for node in reference.graph.all_nodes() if node in readers or node in behind]
    unsolved = {node for node in nodes if _refusal(node, maps, reference.graph) is None}
    found: list[Consumer | Passed] = []
    for node in nodes:
        reason = _refusal(node, maps, reference.graph)
        if reason is not None:
            found.append(Passed(label(node), reason))
            continue
        mine = _partners_known(node, unsolved, shapes)
        twin = LinearLayer(twins[name_of(node.outputs[0])])
        # searches are dear, and are spent on the layers that lost inputs
        pair = pair_of(twin) if pairs and node in readers else None
        found.append(Consumer(LinearLayer(node), twin, maps.get(node), mine, pair))
        # layers are solved in this order: what depends only on earlier ones is computed as it will be in the result
        unsolved.discard(node)
    return tuple(found)


def _behind(reference: Model, readers: Collection[ir.Node]) -> set[ir.Node]:
    """Return the layers that read what changes where `readers` lose channels, but no merged channels themselves.

    Errors of earlier layers reach them, along residual streams above all. ResNet20 at half of its parameters keeps
    80.0 % where these layers keep their weights, and 82.5 % where they are solved. A layer without a bias would become
    larger; a depthwise convolution has too few weights for each channel to make up for anything.
    """
    changed, found = set[ir.Value](), set[ir.Node]()
    for node in reference.graph:
        if node in readers or any(value in changed for value in computed_inputs(node)):
            changed.update(node.outputs)
            if node not in readers and solving_refusal(node) is None:
                layer = LinearLayer(node)
                if layer.data in changed and layer.groups == 1 and not layer.missing_bias:
                    found.add(node)
    return found


def _refusal(node: ir.Node, maps: Mapping[ir.Node, csr_array], graph: ir.Graph) -> str | None:
    """Return why the layer is not solved, or None where it is."""
    if node.graph is not graph:
        return "it stands in the body of an If, Loop or Scan, which does not show what it reads"
    reason = solving_refusal(node)
    if reason is None and node in maps and LinearLayer(node).groups > 1:
        return "its own channels are merged across convolution groups"
    return reason


def _partners_known(node: ir.Node, unsolved: Collection[ir.Node], shapes: Shapes) -> tuple[Partner, ...]:
    """Return the partners that can be computed before the node is solved, up to the first one that cannot."""
    own = shapes.get(name_of(node.outputs[0]))
    found: list[Partner] = []
    for partner in partners(node.outputs[0]):
        if own is None or shapes.get(name_of(partner.total)) != own or _depends_on(partner.value, unsolved):
            break
        found.append(partner)
    return tuple(found)


def _depends_on(value: ir.Value, nodes: Collection[ir.Node]) -> bool:
    """Return whether any of the nodes is needed to compute the value."""
    waiting, seen = [value.producer()], set()
    while waiting:
        maker = waiting.pop()
        if maker is None or maker in seen:
            continue
        if maker in nodes:
            return True
        seen.add(maker)
        waiting.extend(v.producer() for v in computed_inputs(maker))
    return False
