"""Check what must hold of a parsed model before anything is built on it, so that no later step meets half a node.

    names      one tensor, one name, made once
    shapes     dimensions that a machine could hold
    tensors    an element type, dimensions of 0 or more, as much data as they need
    nodes      an operator, the inputs and outputs that it needs, constants and attributes of the types that it has
    functions  see functions.py

Operators, as onnx knows them in the model's operator set; those it does not know are left to the runtime.
"""

import math
from collections.abc import Iterator, Mapping

import onnx
import onnx.defs
import onnx_ir as ir

from onnx_tropnnc.errors import InputModelError
from onnx_tropnnc.graph.checks.functions import about_functions, nodes_of

__all__ = ["about_node", "check_proto", "graphs_of"]

_FIELDS: Mapping[str, tuple[str, int]] = {
    "FLOAT": ("float_data", 4),
    "DOUBLE": ("double_data", 8),
    "INT64": ("int64_data", 8),
    "UINT64": ("uint64_data", 8),
    "UINT32": ("uint64_data", 4),
    "INT32": ("int32_data", 4),
    "INT16": ("int32_data", 2),
    "UINT16": ("int32_data", 2),
    "FLOAT16": ("int32_data", 2),
    "BFLOAT16": ("int32_data", 2),
    "INT8": ("int32_data", 1),
    "UINT8": ("int32_data", 1),
    "BOOL": ("int32_data", 1),
}
"""Per element type the field that holds its elements one by one, and the bytes of an element in `raw_data`."""


# Linux takes no longer paths.
_LONGEST_LOCATION = 4095

# An axis of so many bytes is a terabyte long; onnxruntime ends the whole process over some dimensions beyond it.
_LARGEST_DIMENSION = 2**40

# Python reads no whole number of more than 4,300 digits, and no file has so many bytes as 30 of them say.
_MOST_DIGITS = 30

# An operator set's version is a small number; onnx takes no other.
_MOST_VERSIONS = 1000


def check_proto(proto: onnx.ModelProto, name: str) -> None:
    """Raise InputModelError for the first thing that does not hold; `name` is how the model is called."""
    if (reason := _first_reason(proto)) is not None:
        raise InputModelError(f"{name}: {reason}; the file is truncated or broken, export it again")


def _first_reason(proto: onnx.ModelProto) -> str | None:
    if reason := about_functions(proto):
        return reason
    local = {(function.domain, function.name) for function in proto.functions}
    for graph in graphs_of(proto.graph):
        values = (*graph.input, *graph.output, *graph.value_info)
        reasons = (*map(_about_shape, values), *map(_about_tensor, graph.initializer))
        if reason := _about_names(graph) or next(filter(None, reasons), None):
            return reason
    if reason := _about_references(proto.graph):
        return reason
    nodes = [(graph.node, proto.opset_import, _constant_types(graph)) for graph in graphs_of(proto.graph)]
    nodes += [([*nodes_of(function.node)], function.opset_import, {}) for function in proto.functions]
    for part, opsets, types in nodes:
        versions = {entry.domain: entry.version for entry in opsets}
        for node in part:
            if (node.domain, node.op_type) not in local and (reason := about_node(node, versions, types)):
                return reason
    return None


def _about_references(graph: onnx.GraphProto) -> str | None:
    """Return what refers to an attribute of a function, though it stands in no function."""
    for node in nodes_of(graph.node):
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                return f"{_called(node)} refers to an attribute of a function, but stands in none"
    return None


def _constant_types(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the types of the graph's own constants, written as in the signatures of operators: tensor(float)."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value" and node.output:
                tensors[node.output[0]] = attribute.t
    names = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    return {name: f"tensor({names[tensor.data_type]})" for name, tensor in tensors.items() if tensor.data_type in names}


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the graph and the graphs in its nodes' attributes, however deep."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs_of(attribute.g)
            for inner in attribute.graphs:
                yield from graphs_of(inner)


def _about_names(graph: onnx.GraphProto) -> str | None:
    stored = [tensor.name for tensor in graph.initializer]
    made = [output for node in graph.node for output in node.output if output]
    if not all(value.name for value in (*graph.input, *graph.output)):
        return "an input or output has no name"
    if "" in stored:
        return "an initializer has no name"
    if len(set(stored)) < len(stored):
        return f"two initializers are called {_twice(stored)}"
    read = {value.name for value in graph.input} | set(stored)
    if len(set(made)) < len(made) or read & set(made):
        return f"{_twice([*made, *(read & set(made))])} is made twice"
    return None


def _twice(names: list[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _about_shape(value: onnx.ValueInfoProto) -> str | None:
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    wrong = next((size for size in sizes if not 0 <= size <= _LARGEST_DIMENSION), None)
    return None if wrong is None else f"{value.name} is declared with a dimension of {wrong}"


def _about_tensor(tensor: onnx.TensorProto) -> str | None:
    called = f"tensor {tensor.name}" if tensor.name else "a tensor"
    kinds = onnx.TensorProto.DataType
    if tensor.data_type not in kinds.values() or tensor.data_type == onnx.TensorProto.UNDEFINED:
        return f"{called} has no element type that is known ({tensor.data_type})"
    if any(d < 0 for d in tensor.dims):
        return f"{called} has a negative dimension"
    # numpy makes no array of such a shape even where another dimension is 0
    if math.prod(max(d, 1) for d in tensor.dims) > _LARGEST_DIMENSION:
        return f"{called} has dimensions that no memory holds ({' x '.join(map(str, tensor.dims[:6]))})"
    kind = kinds.Name(tensor.data_type)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        reason = _about_external(tensor)
        return None if reason is None else f"{called} {reason}"
    if kind not in _FIELDS:
        return None
    (field, width), size = _FIELDS[kind], math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        held, needed, unit = len(tensor.raw_data), size * width, "bytes"
    else:
        held, needed, unit = len(getattr(tensor, field)), size, "numbers"
    return f"{called} holds {held} {unit} where its shape needs {needed}" if held != needed else None


def _about_external(tensor: onnx.TensorProto) -> str | None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if tensor.data_type == onnx.TensorProto.STRING:
        return "holds strings in external data, which ONNX keeps for numbers"
    if not location or "\0" in location or len(location) > _LONGEST_LOCATION:
        return "names no file that could exist for its external data"
    for key in ("offset", "length"):
        if not entries.get(key, "0").isdecimal():
            return f"has external data whose {key} is {entries[key][:20]!r}, not a number of bytes"
    # a length of 0 leaves it to the shape, for onnxruntime too
    stated, needed = int(entries.get("length", "0")[:_MOST_DIGITS]), _bytes_needed(tensor)
    return (
        f"states {stated} bytes of external data where its shape needs {needed}" if stated not in (0, needed) else None
    )


def _bytes_needed(tensor: onnx.TensorProto) -> int:
    """Return the bytes of the tensor's elements, several of which share a byte where they are narrower than one."""
    bits: int = math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth
    return -(-bits // 8)


def about_node(node: onnx.NodeProto, versions: Mapping[str, int], types: Mapping[str, str]) -> str | None:
    """Return what is wrong with a node, or None; `types` are those of the constants of its graph."""
    called = _called(node)
    if not node.op_type:
        return f"node {called} has no operator"
    for attribute in node.attribute:
        tensors = (attribute.t,) if attribute.type == onnx.AttributeProto.TENSOR else attribute.tensors
        for tensor in tensors:
            if reason := _about_tensor(tensor):
                return f"{called}: {reason}"
        # onnx's own error messages quote attributes, and fail on bytes that are no text
        if any(text.decode("utf-8", "ignore").encode() != text for text in (attribute.s, *attribute.strings)):
            return f"{called}: its attribute {attribute.name} is no text"
    if not isinstance(node.op_type, str) or not isinstance(node.domain, str):
        return f"the operator of {called!s} is no text"  # protobuf hands out bytes that are not UTF-8 as they are
    if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and not _is_whole_constant(node):
        return f"{called} (Constant) holds no value"
    schema = _schema(node, versions)
    if schema is None:
        return None
    reason = (
        _about_inputs(node, schema)
        or _about_types(node, schema, types)
        or _about_attributes(node, schema)
        or _about_parts(node)
    )
    return None if reason is None else f"{called} ({node.op_type}) {reason}"


def _called(node: onnx.NodeProto) -> str:
    return node.name or f"{node.op_type} of {next(iter(node.output), 'nothing')}"


def _is_whole_constant(node: onnx.NodeProto) -> bool:
    """Return whether the Constant has exactly one attribute, of a name that onnx knows."""
    names = [attribute.name for attribute in node.attribute]
    return len(names) == 1 and names[0] in onnx.defs.get_schema("Constant", 13, "").attributes


def _schema(node: onnx.NodeProto, versions: Mapping[str, int]) -> onnx.defs.OpSchema | None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = versions.get(domain, versions.get("ai.onnx", 0) if domain == "" else 0)
    if not 0 < version < _MOST_VERSIONS or not onnx.defs.has(
        node.op_type, domain=domain, max_inclusive_version=version
    ):
        return None
    return onnx.defs.get_schema(node.op_type, version, domain)


def _about_inputs(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> str | None:
    if not schema.min_input <= len(node.input) <= schema.max_input:
        few = len(node.input) < schema.min_input
        allowed = f"at least {schema.min_input} are needed" if few else f"at most {schema.max_input} are read"
        return f"has {len(node.input)} inputs where {allowed}"
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    for given, formal in zip(node.input, schema.inputs, strict=False):
        if not given and formal.option == single:
            return f"lacks its input {formal.name}"
    if not schema.min_output <= len(node.output) <= schema.max_output or not any(node.output):
        return f"has {sum(map(bool, node.output))} outputs"
    return None


def _about_types(node: onnx.NodeProto, schema: onnx.defs.OpSchema, types: Mapping[str, str]) -> str | None:
    # Not `formal.types`, which some versions of onnx cannot hand to Python.
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    for place, given in enumerate(node.input):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)]
        taken = allowed.get(formal.type_str, [formal.type_str])
        # Some runtimes take narrower floating-point numbers than the operator set of the model names.
        narrow = "float" in types.get(given, "") and "tensor(float)" in taken
        if given in types and types[given] not in taken and not narrow:
            return f"reads the constant {given}, which is a {types[given]}, as its {formal.name}"
    return None


def _about_parts(node: onnx.NodeProto) -> str | None:
    """Return where a Split states another number of parts than it has outputs: onnx would make all that are stated."""
    for attribute in node.attribute:
        if node.op_type == "Split" and attribute.name == "num_outputs" and attribute.i != len(node.output):
            return f"is to make {attribute.i} parts, but has {len(node.output)} outputs"
    return None


def _about_attributes(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> str | None:
    given = {attribute.name: attribute for attribute in node.attribute}
    for name, formal in schema.attributes.items():
        if name not in given:
            if formal.required:
                return f"lacks its attribute {name}"
            continue
        found, wanted = given[name], str(formal.type).removeprefix("AttrType.")
        held = onnx.AttributeProto.AttributeType.Name(found.type)
        if not found.ref_attr_name and held != wanted:
            return f"has an attribute {name} of type {held} instead of {wanted}"
    return None
