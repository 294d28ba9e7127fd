"""Write normalizations of residual streams without mean, scale and shift, and correct them where channels go.

    y = s x / sqrt(mean(x^2) + epsilon)      s: one number for each of the d' channels, 1 at first

Where channels go, the mean is over fewer of them. With sums over the d' channels that are left, and E the mean square
of those that went, (sum(x^2) + E) / d is about what the mean over all d channels was:

    mean' = sum(x^2) / d'      epsilon' = (E / d + epsilon) d / d'      s' = s sqrt(d / d')
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import add_initializer, array_of, label, name_of, own_input, set_array
from onnx_tropnnc.graph.knowledge import StreamNorm, set_stream_norm, stream_norm
from onnx_tropnnc.graph.normalizations import Normalization

__all__ = ["narrow_norm", "write_norm"]

# onnx has RMSNormalization since operator set 23. Before, ONNX Runtime (1.8 and later) recognises these six nodes, and
# only with Pow for the square, and runs them as one operator in half the time of a LayerNormalization.
_RMS_NORMALIZATION = 23


def write_norm(norm: Normalization, width: int, opset: int, dtype: np.dtype[np.generic]) -> None:
    """Put the normalization without mean, scale and shift behind the old one, whose readers read it from now on."""
    old, graph, data = norm.node, norm.node.graph, norm.data
    assert isinstance(graph, ir.Graph)
    name = label(old)
    # along the channels, where these do not lie on the last axis
    shape = width, *[1] * (norm.rank - 1 - norm.axis)
    ones = add_initializer(old, f"{name}_scale", np.ones(shape, dtype))
    if opset >= _RMS_NORMALIZATION and norm.is_operator:
        nodes = [_node("RMSNormalization", [data, ones], name, {"axis": -1, "epsilon": norm.epsilon})]
        average = nodes[0].outputs[0]
    else:
        square = _node("Pow", [data, add_initializer(old, f"{name}_two", np.asarray(2, dtype))], f"{name}_square")
        if opset >= 18:
            axes = add_initializer(old, f"{name}_axis", np.array([norm.axis]))
            mean = _node("ReduceMean", [square.outputs[0], axes], f"{name}_mean_square", {"keepdims": 1})
        else:
            more = {"axes": [norm.axis], "keepdims": 1}
            mean = _node("ReduceMean", [square.outputs[0]], f"{name}_mean_square", more)
        epsilon = add_initializer(old, f"{name}_epsilon", np.asarray(norm.epsilon, dtype))
        added = _node("Add", [mean.outputs[0], epsilon], f"{name}_add_epsilon")
        root = _node("Sqrt", [added.outputs[0]], f"{name}_root")
        divided = _node("Div", [data, root.outputs[0]], f"{name}_divide")
        scaled = _node("Mul", [divided.outputs[0], ones], name)
        nodes, average = [square, mean, added, root, divided, scaled], mean.outputs[0]
    graph.insert_after(old, nodes)
    for node in nodes:
        node.outputs[0].name = f"{node.name}_output"
    set_stream_norm(average, StreamNorm(width, np.zeros(width)))
    new, before = nodes[-1].outputs[0], old.outputs[0]
    new.type, new.shape = before.type, before.shape
    before.replace_all_uses_with(new)


def narrow_norm(average: ir.Node, left: NDArray[np.bool_]) -> None:
    """Correct a normalization of which channels have gone; `left` says which of those that it had are left.

    `average` is the node that averages over them, whose scale has the entries that are left already.
    """
    known = stream_norm(average.outputs[0])
    if known is None or left.all():
        return
    energies = known.energies
    before, after = len(energies), int(left.sum())
    missing = float(energies[~left].sum())
    set_stream_norm(average.outputs[0], StreamNorm(known.width, energies[left]))
    if average.op_type in ("LayerNormalization", "RMSNormalization"):
        epsilon = average.attributes.get_float("epsilon", 1e-5)
        average.attributes["epsilon"] = ir.AttrFloat32("epsilon", (epsilon * before + missing) / after)
        scaled, slot = average, 1
    else:
        added = _reader(average)
        slot = next(i for i, value in enumerate(added.inputs) if array_of(value) is not None)
        value = own_input(added, slot, 1)
        set_array(value, (np.asarray(array_of(value), np.float64) * before + missing) / after)
        scaled = _reader(_reader(_reader(added)))
        slot = next(i for i, value in enumerate(scaled.inputs) if array_of(value) is not None)
    scale = own_input(scaled, slot, 1)
    set_array(scale, np.asarray(array_of(scale), np.float64) * np.sqrt(before / after))


def _node(operator: str, inputs: list[ir.Value], name: str, attributes: Mapping[str, Any] | None = None) -> ir.Node:
    return ir.node(operator, inputs, attributes or {}, name=name)


def _reader(node: ir.Node) -> ir.Node:
    uses = list(node.outputs[0].uses())
    assert len(uses) == 1, name_of(node.outputs[0])
    return uses[0].node
