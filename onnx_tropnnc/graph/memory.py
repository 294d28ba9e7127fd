"""Compute how much memory the tensors of one run take, and state how much may be taken by default.

onnxruntime frees a tensor after its last reader, so a run takes what its widest place takes. The shapes are inferred,
not measured: a run that is too large must not even be tried.
"""

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnx_tropnnc.graph.bodies import computed_inputs
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes, infer_shapes

__all__ = ["ARENA_BYTES", "MEMORY", "live_bytes", "run_bytes", "tensor_bytes"]

# Bytes that everything which runs may take together where nothing else is said: `--memory 1.5`.
MEMORY = 3 * 2**29

# Sessions whose runs take more than this allocate and free their tensors one by one.
# onnxruntime's arena keeps up to twice the largest run's bytes for as long as the session lives. Asking the system for
# memory in every run costs less than a thousandth of the time of runs this large.
ARENA_BYTES = 2**28


def tensor_bytes(value: ir.Value, shapes: Shapes) -> int:
    """Return what a tensor takes; 0 where its shape is not known, 4 bytes an element where its type is not."""
    shape = shapes.get(name_of(value))
    if shape is None or any(dim is None for dim in shape):
        return 0
    unknown = value.dtype in (None, ir.DataType.UNDEFINED, ir.DataType.STRING)
    size = 4.0 if unknown or value.dtype is None else value.dtype.itemsize
    return int(size * math.prod(dim or 0 for dim in shape))


def live_bytes(nodes: Sequence[ir.Node], shapes: Shapes, kept: frozenset[str] = frozenset()) -> int:
    """Return what the tensors that are alive at the same time take at most while the nodes run in this order.

    Args:
        nodes: in the order in which they run.
        shapes: of the tensors.
        kept: names of tensors that stay alive to the end because they are handed out.
    """
    last = {value: i for i, node in enumerate(nodes) for value in computed_inputs(node)}
    alive: dict[ir.Value, int] = {}
    most = 0
    for i, node in enumerate(nodes):
        for value in (*computed_inputs(node), *node.outputs):
            alive.setdefault(value, tensor_bytes(value, shapes) if value.name else 0)
        most = max(most, sum(alive.values()))
        for value in [v for v in alive if last.get(v, -1) <= i and v.name not in kept]:
            del alive[value]
    return most


def run_bytes(model: Model, input_shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return about how many bytes the tensors of one run take at the same time when its inputs have these shapes."""
    shapes = infer_shapes(model, input_shapes)
    outputs = frozenset(name_of(value) for value in model.graph.outputs)
    return live_bytes(tuple(model.graph), shapes, outputs)
