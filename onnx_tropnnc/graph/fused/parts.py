"""What a node remembers of the fused operator that it came from, and how such nodes are made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.checks.protos import about_node
from onnx_tropnnc.graph.constants import add_initializer, constant_tensor, label, name_of
from onnx_tropnnc.graph.uses import input_at

__all__ = ["Facts", "Part", "Port", "Split", "SplitRule", "Whole", "part_of", "signature", "take_place"]

_PART = "onnx_tropnnc.part"

Port = tuple[int, int]
"""The number of a part, and one of its input or output slots."""

Signature = tuple[object, ...]
Renewed = Callable[[Sequence[ir.Node]], Mapping[str, ir.Attr]]


@dataclass(frozen=True, eq=False)
class Whole:
    """A fused operator that was split: what has to be known to write it again.

    Attributes:
        operator: its domain, type and overload.
        name: the node's name.
        attributes: as the file gave them.
        count: how many parts it became.
        inputs: for each input slot the ports of the parts that read it; none where the input was absent.
        outputs: for each output slot the part's output that it is; None where it was absent.
        signature: what the parts must look like so that they still compute what the operator does.
        computed: the input slots at which the operator read no constant.
        free: parts whose attributes and constants change with the channels.
        renewed: returns, of the parts as they are, the operator's attributes that change with the channels.
        doc_string: of the node in the file.
        metadata: of the node in the file.
    """

    operator: tuple[str, str, str]
    name: str | None
    attributes: Mapping[str, ir.Attr]
    count: int
    inputs: tuple[tuple[Port, ...], ...]
    outputs: tuple[Port | None, ...]
    signature: Signature
    computed: frozenset[int]
    free: tuple[int, ...]
    renewed: "Renewed"
    doc_string: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Part:
    """This node is the part `number` of `whole`."""

    whole: Whole
    number: int


def part_of(node: ir.Node) -> Part | None:
    """Return which part of a fused operator the node is; None where it stood in the file by itself."""
    found = node.meta.get(_PART)
    return found if isinstance(found, Part) else None


def signature(nodes: Sequence[ir.Node], inputs: Sequence[Sequence[Port]], free: Sequence[int]) -> Signature:
    """Return what must be equal in two lists of nodes for them to compute the same of their `inputs`."""
    outside = {port for ports in inputs for port in ports}
    makers = {value: (i, slot) for i, node in enumerate(nodes) for slot, value in enumerate(node.outputs)}
    return tuple(
        (
            node.op_identifier(),
            None if i in free else _attributes(node),
            tuple(
                makers.get(value) or (None if i in free else _constant(value))
                for slot, value in enumerate(node.inputs)
                if value is not None and (i, slot) not in outside
            ),
        )
        for i, node in enumerate(nodes)
    )


def _attributes(node: ir.Node) -> tuple[tuple[str, bytes], ...]:
    pairs = ((name, ir.serde.serialize_attribute(a).SerializeToString()) for name, a in node.attributes.items())
    return tuple(sorted(pairs))


def _constant(value: ir.Value) -> object:
    """Return the elements of a constant that the split made; they are few, so that comparing them costs nothing."""
    tensor = value.const_value if value.is_initializer() else None
    return name_of(value) if tensor is None or tensor.size > 1 else tensor.numpy().tobytes()


@dataclass(frozen=True)
class Facts:
    """What is known of the tensors of a model while it is read.

    Attributes:
        ranks: of tensors, by name.
        types: element types of tensors, by name.
        dtype: the type of all floating-point tensors, where the file has only one.
        opset: the version of the default operator set.
    """

    ranks: Mapping[str, int]
    types: Mapping[str, ir.DataType]
    dtype: ir.DataType | None
    opset: int

    def rank(self, value: ir.Value | None) -> int | None:
        """Return the tensor's number of dimensions, or None where it is not known yet."""
        return None if value is None else self.ranks.get(name_of(value))

    def type(self, value: ir.Value | None) -> ir.DataType | None:
        """Return the tensor's element type, or None where it is not known yet."""
        return self.dtype if value is None else self.types.get(name_of(value), self.dtype)


@dataclass
class Split:
    """The standard nodes that a fused one becomes; nothing changes in the graph before `apply`."""

    node: ir.Node
    facts: Facts
    fresh: Callable[[str], str]
    """Returns a name that no tensor has, like the one given."""
    constants: dict[tuple[object, ...], ir.Value]
    """Constants that earlier splits have made."""
    parts: list[ir.Node] = field(default_factory=list)

    def input(self, slot: int) -> ir.Value | None:
        """Return an input of the fused node, or None where it is absent."""
        return input_at(self.node, slot)

    def add(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: int = 1,
        domain: str = "",
    ) -> ir.Value:
        """Add a part, and return its first output; the first part has the fused node's name."""
        made = ir.node(operator, inputs, attributes or {}, num_outputs=outputs, domain=domain)
        number = len(self.parts)
        made.name = f"{label(self.node)}_{operator.lower()}_{number}" if number else self.node.name
        self.parts.append(made)
        return made.outputs[0]

    def scalar(self, number: float, dtype: ir.DataType | None = None) -> ir.Value:
        """Return a constant of one number, by default in the type of the fused node's first input."""
        return self._constant(np.asarray(number, (dtype or self.dtype).numpy()))

    def integers(self, numbers: Sequence[int], *, own: bool = False) -> ir.Value:
        """Return a constant list of integers; `own` says that no other node may read the same constant."""
        array = np.asarray(numbers, np.int64)
        return add_initializer(self.node, self.fresh("numbers"), array) if own else self._constant(array)

    def _constant(self, array: NDArray[np.generic]) -> ir.Value:
        key = self.node.graph, array.dtype.str, array.shape, array.tobytes()
        if key not in self.constants:
            self.constants[key] = add_initializer(self.node, self.fresh("number"), array)
        return self.constants[key]

    @property
    def dtype(self) -> ir.DataType:
        """Return the element type of the fused node's first input."""
        return self.facts.type(self.input(0)) or ir.DataType.FLOAT

    def apply(
        self,
        outputs: Sequence[ir.Value | None],
        *,
        free: tuple[int, ...] = (),
        renewed: Renewed | None = None,
        optional: Mapping[int, Port] | None = None,
        returns: bool = True,
    ) -> bool:
        """Put the parts in the fused node's place, and return True; False where they would be broken nodes.

        Args:
            outputs: the parts' value for each output of the fused node, whose name and readers it takes over; None for
                one that nothing reads.
            free: the parts whose attributes and constants change with the channels.
            renewed: returns, of the parts as they are, the fused node's attributes that change with the channels; None
                where these are the attributes of the free parts.
            optional: by input slot of the fused node the port of a part that may get such an input later.
            returns: whether the parts are written as a fused node again.
        """
        node, graph = self.node, self.node.graph
        assert isinstance(graph, ir.Graph)
        # nobody checks the attributes and inputs of operators that onnx does not know
        protos = [ir.serde.serialize_node(_named(part)) for part in self.parts]
        if any(about_node(proto, {"": self.facts.opset, "com.microsoft": 1}, {}) for proto in protos):
            for part in self.parts:
                for slot in range(len(part.inputs)):
                    part.replace_input_with(slot, None)
            return False
        whole = self._whole(outputs, free, renewed or partial(_attributes_of, free), optional or {})
        graph.insert_after(node, self.parts)
        taken = {value for value in outputs if value is not None}
        for number, part in enumerate(self.parts):
            if returns:
                part.meta[_PART] = Part(whole, number)
            for value in part.outputs:
                if value not in taken:
                    value.name = self.fresh(f"{label(node)}_{part.op_type}")
        for old, new in zip(node.outputs, outputs, strict=False):
            if new is not None:
                take_place(old, new)
        graph.remove(node, safe=True)
        return True

    def _whole(
        self, outputs: Sequence[ir.Value | None], free: tuple[int, ...], renewed: Renewed, optional: Mapping[int, Port]
    ) -> Whole:
        node = self.node
        reading: dict[ir.Value, list[Port]] = {}
        for i, part in enumerate(self.parts):
            for slot, value in enumerate(part.inputs):
                if value is not None:
                    reading.setdefault(value, []).append((i, slot))
        makers = {value: (i, slot) for i, part in enumerate(self.parts) for slot, value in enumerate(part.outputs)}
        slots = range(max([len(node.inputs), *(slot + 1 for slot in optional)]))
        inputs = tuple(
            tuple(reading.get(value, ())) if (value := self.input(slot)) is not None else _port(optional, slot)
            for slot in slots
        )
        return Whole(
            operator=(node.domain, node.op_type, node.overload),
            name=node.name,
            attributes=dict(node.attributes),
            count=len(self.parts),
            inputs=inputs,
            outputs=tuple(None if value is None else makers[value] for value in outputs),
            signature=signature(self.parts, inputs, free),
            computed=frozenset(slot for slot in slots if _is_computed(self.input(slot))),
            free=free,
            renewed=renewed,
            doc_string=node.doc_string,
            metadata=dict(node.metadata_props),
        )


def _is_computed(value: ir.Value | None) -> bool:
    return value is not None and constant_tensor(value) is None


def _attributes_of(free: Sequence[int], nodes: Sequence[ir.Node]) -> Mapping[str, ir.Attr]:
    return {name: attribute for i in free for name, attribute in nodes[i].attributes.items()}


SplitRule = Callable[[Split], bool]
"""What splits a node of one operator; False where it lacks a rank, or does not know the form."""


def _named(part: ir.Node) -> ir.Node:
    """Return the node with a name for each output, as a node in a file has it."""
    for number, value in enumerate(part.outputs):
        value.name = value.name or f"{part.op_type}_{number}"
    return part


def _port(optional: Mapping[int, Port], slot: int) -> tuple[Port, ...]:
    return (optional[slot],) if slot in optional else ()


def take_place(old: ir.Value, new: ir.Value) -> None:
    """Let `new` have the name, the type, the shape and the readers of `old`."""
    name = old.name
    new.type = new.type if old.type is None else old.type
    new.shape = new.shape if old.shape is None else old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name, new.name = None, name
    new.meta.update(old.meta)
