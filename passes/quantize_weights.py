"""Store weights as integers again that DequantizeWeights computed: the result of an int8 model is an int8 model.

before  W -> Conv                        W: merged, cut or solved for
after   DequantizeLinear(q, s, z) -> Conv
needs   weights of which it is known how they were stored (`weight_quantization`)

Weights that only lost channels keep their integers and steps. Where merged or solved weights exceed the range of their
type, their steps become larger, and those of the layer's bias with them: runtimes that compute in integers assume that
the bias's step is the product of the input's and the weight's. A bias that solving added is stored on that step too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.graph.block_quantization import quantize_blocks
from onnx_tropnnc.graph.constants import add_initializer, array_of, name_of
from onnx_tropnnc.graph.knowledge import weight_quantization
from onnx_tropnnc.graph.layers import bias_of, is_layer
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.quantization import Quantization

__all__ = ["QuantizeWeights"]


@dataclass(frozen=True)
class QuantizeWeights:
    """Insert integers and a DequantizeLinear in front of every layer that had them."""

    name: str = "quantize weights"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Return a note that says how many weights changed."""
        quantize_blocks(model.ir)
        values = [value for graph in model.ir.graphs() for value in graph.initializers.values() if value.uses()]
        stored = _stored_as(values)
        biases = {
            value: quantization
            for value, quantization in stored.items()
            if all(is_layer(use.node) and bias_of(use.node) is value for use in value.uses())
        }
        weights = {value: quantization for value, quantization in stored.items() if value not in biases}
        # weights first: a bias's step follows from the steps of the weight beside it
        layers: dict[ir.Node, _Stored] = {}
        changed = 0
        for value, quantization in weights.items():
            readers = [use.node for use in value.uses()]
            found = _Stored.of(value, quantization)
            layers |= dict.fromkeys(readers, found)
            changed += found.quantization.integers is not quantization.integers
        for value, quantization in biases.items():
            _Stored.of(value, _on_longer_steps(value, quantization, layers))
        for value, quantization in _new_biases(layers).items():
            _Stored.of(value, quantization)
        kinds = " and ".join(sorted({quantization.dtype.name.lower() for quantization in stored.values()}))
        return (
            (Note(f"{changed} of {len(weights)} quantized weights changed, and are {kinds} again"),) if changed else ()
        )


@dataclass(frozen=True, eq=False)
class _Stored:
    """A weight that was written as integers, and the factors by which its steps grew."""

    quantization: Quantization
    factors: NDArray[np.float64]

    @classmethod
    def of(cls, value: ir.Value, quantization: Quantization) -> "_Stored":
        """Write the weight as integers."""
        array = array_of(value)
        assert array is not None
        integers, factors = quantization.apply(array)
        found = quantization.rescaled(integers, factors)
        _write(value, found)
        return cls(found, factors)


def _stored_as(values: Iterable[ir.Value]) -> dict[ir.Value, Quantization]:
    """Return how each quantized weight was stored; copies of one weight get nodes with names of their own."""
    found: dict[ir.Value, Quantization] = {}
    taken: set[str] = set()
    for value in values:
        stored = weight_quantization(value)
        if stored is None:
            continue
        is_copy = stored.node != "" and stored.node in taken
        found[value] = replace(stored, node=f"{name_of(value)}_dequantize") if is_copy else stored
        taken.add(stored.node)
    return found


def _on_longer_steps(value: ir.Value, bias: Quantization, layers: Mapping[ir.Node, _Stored]) -> Quantization:
    """Return the bias on steps that are larger by the same factors as those of the weight beside it."""
    weight = next((layers[use.node] for use in value.uses() if use.node in layers), None)
    if weight is None or weight.factors.size != bias.steps.size or (weight.factors == 1.0).all():
        return bias
    return bias.rescaled(bias.integers, weight.factors)


def _new_biases(layers: Mapping[ir.Node, _Stored]) -> dict[ir.Value, Quantization]:
    """Return floating-point biases that only a layer with integer weights reads, on the products' steps."""
    found = {}
    for node, weight in layers.items():
        bias = bias_of(node) if is_layer(node) else None
        array, step = array_of(bias), _step_of(node.inputs[0])
        if bias is None or array is None or step is None or not bias.is_initializer() or len(bias.uses()) > 1:
            continue
        steps = np.asarray(weight.quantization.steps * step).astype(array.dtype)
        if array.ndim == 1 and steps.size in (1, array.size):
            name, single = name_of(bias), steps.size == 1
            found[bias] = Quantization(
                node=f"{name}_dequantize",
                names=(f"{name}_quantized", f"{name}_scale", ""),
                dtype=ir.DataType.INT32,
                axis=None if single else 0,
                steps=steps.reshape(()) if single else steps,
                zeros=np.zeros(() if single else steps.shape, np.int32),
                integers=np.zeros(array.shape, np.int32),
            )
    return found


def _step_of(value: ir.Value | None) -> NDArray[Any] | None:
    """Return the step of a tensor that comes from a DequantizeLinear with a single step, else None."""
    node = None if value is None else value.producer()
    step = array_of(node.inputs[1]) if node is not None and node.op_type == "DequantizeLinear" else None
    return step if step is not None and step.size == 1 else None


def _write(value: ir.Value, stored: Quantization) -> None:
    """Replace the weight by a DequantizeLinear of the integers, whose output takes the weight's name."""
    name, graph = name_of(value), value.graph
    assert isinstance(graph, ir.Graph)
    anchor = next((node for node in graph if any(source is value for source in node.inputs)), None) or graph[0]
    parts = zip(stored.names, (stored.integers, stored.steps, stored.zeros), strict=True)
    inputs = [_constant(anchor, wanted, array) for wanted, array in parts if wanted]
    node = ir.node("DequantizeLinear", inputs, {} if stored.axis is None else {"axis": stored.axis}, name=stored.node)
    graph.insert_before(anchor, node)
    value.replace_all_uses_with(node.outputs[0])
    graph.initializers.pop(name)
    node.outputs[0].name = name


def _constant(anchor: ir.Node, wanted: str, array: NDArray[np.generic]) -> ir.Value:
    """Return an initializer of this name: the one with these elements that other weights share, or a new one."""
    graph = anchor.graph
    there = array_of(graph.initializers.get(wanted)) if isinstance(graph, ir.Graph) else None
    if (
        isinstance(graph, ir.Graph)
        and there is not None
        and there.dtype == array.dtype
        and np.array_equal(there, array)
    ):
        return graph.initializers[wanted]
    return add_initializer(anchor, wanted, array)
