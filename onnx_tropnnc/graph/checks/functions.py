"""Check a model's local functions before their calls are replaced by their bodies.

calls     no more inputs and outputs than the function has
depth     no function calls itself, directly or through others
size      at most MOST_NODES nodes once every call is replaced
"""

from collections.abc import Iterable, Iterator

import onnx

__all__ = ["MOST_NODES", "about_functions", "nodes_of"]

# Exporters write some 50,000 nodes at most. A chain of forty functions that each call the next one twice would become
# 10^12, which no memory holds.
MOST_NODES = 500_000

Key = tuple[str, str, str]


def about_functions(proto: onnx.ModelProto) -> str | None:
    """Return what is wrong with the model's functions or their calls, or None."""
    functions = {_key(function): function for function in proto.functions}
    if len(functions) < len(proto.functions):
        return "two functions have one name"
    calls = {key: list(_calls(function.node, functions)) for key, function in functions.items()}
    calls_of_model = list(_calls(proto.graph.node, functions))
    for call in (*calls_of_model, *(call for found in calls.values() for call in found)):
        function = functions[_key_of_call(call)]
        if len(call.input) > len(function.input) or len(call.output) > len(function.output):
            return (
                f"{call.name or call.op_type} calls function {function.name} with {len(call.input)} inputs and "
                f"{len(call.output)} outputs where it has {len(function.input)} and {len(function.output)}"
            )
    sizes: dict[Key, int] = {}
    for key in functions:
        if (reason := _size(key, functions, calls, sizes)) is not None:
            return reason
    total = sum(1 for _ in nodes_of(proto.graph.node)) + sum(sizes[_key_of_call(call)] for call in calls_of_model)
    return f"its functions stand for more than {MOST_NODES} nodes" if total > MOST_NODES else None


def nodes_of(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes and those in the graphs of their attributes, however deep."""
    waiting = [*nodes]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            waiting.extend(attribute.g.node)
            for graph in attribute.graphs:
                waiting.extend(graph.node)


def _size(
    key: Key, functions: dict[Key, onnx.FunctionProto], calls: dict[Key, list[onnx.NodeProto]], sizes: dict[Key, int]
) -> str | None:
    """Write the function's size and those of what it calls into `sizes`; the stack is ours, as chains may be long."""
    path: set[Key] = set()
    waiting = [(key, False)]
    while waiting:
        current, done = waiting.pop()
        if done:
            inner = (sizes[_key_of_call(call)] for call in calls[current])
            # No more is counted than is needed to refuse: the numbers would grow as long as the chain.
            sizes[current] = min(sum(1 for _ in nodes_of(functions[current].node)) + sum(inner), MOST_NODES + 1)
            path.remove(current)
        elif current in path:
            return f"function {current[1]} calls itself"
        elif current not in sizes:
            path.add(current)
            waiting.append((current, True))
            waiting.extend((_key_of_call(call), False) for call in calls[current])
    return None


def _calls(nodes: Iterable[onnx.NodeProto], functions: dict[Key, onnx.FunctionProto]) -> Iterator[onnx.NodeProto]:
    return (node for node in nodes_of(nodes) if _key_of_call(node) in functions)


def _key(function: onnx.FunctionProto) -> Key:
    return function.domain, function.name, function.overload


def _key_of_call(node: onnx.NodeProto) -> Key:
    return node.domain, node.op_type, node.overload
