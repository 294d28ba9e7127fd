"""Hold a step that must be exact in real numbers to what rounding may change."""

import math

import onnx_ir as ir

from onnx_tropnnc.errors import BrokenPromiseError, NotRunnable
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.comparison import ANY_ROOM, Room, compare, runnable_size
from onnx_tropnnc.running.sessions import ModelSource, Runner
from onnx_tropnnc.running.verification import Verification, verify

__all__ = ["assert_same", "exact_tolerance"]

# A difference counts as real where it is this many times as large as what rounding makes.
# Folding takes away a few roundings of many; ten times what optimizing does to them is no rounding any more.
NOISE_FACTOR = 10.0

# The relative L2 error that an exact step may cause where all is computed in float32 or better.
# Folding moves float32 outputs of deep networks by up to 1e-5; real defects move them by more than 1e-3.
TOLERANCE = 1e-4

# The same for types with fewer digits. 16 roundings: a network of a hundred layers, each of which rounds independently,
# sums up about ten of them.
COARSE_TOLERANCES = {ir.DataType.FLOAT16: 16 * 2.0**-11, ir.DataType.BFLOAT16: 16 * 2.0**-8}


def exact_tolerance(model: Model) -> float:
    """Return the relative L2 error that rounding may cause in a step that is exact in real numbers.

    It follows the coarsest floating-point type in the graph: one rounding of float16 is 5e-4 already.
    """
    nodes = tuple(model.graph.all_nodes())
    found = {value.dtype for node in nodes for value in (*node.inputs, *node.outputs) if value is not None}
    # files need not say the types of what nodes make, but other floating-point types come from inputs, weights or Casts
    found |= {ir.DataType(node.attributes.get_int("to", 0)) for node in nodes if node.op_type == "Cast"}
    return max((tolerance for dtype, tolerance in COARSE_TOLERANCES.items() if dtype in found), default=TOLERANCE)


def assert_same(
    original: ModelSource, folded: ModelSource, samples: Samples, tolerance: float = TOLERANCE, room: Room = ANY_ROOM
) -> Verification:
    """Return the comparison of two models that must compute the same; nothing is timed.

    An output that is numerically nothing (1e-7 behind a Sigmoid) is mostly rounding: where the tolerance is not met,
    the difference must also be NOISE_FACTOR times what onnxruntime's own optimizations change in the original.

    Raises:
        BrokenPromiseError: an output differs by more than the tolerance (relative L2 error).
    """
    verification = verify(original, folded, samples, timing_seconds=0, room=room)
    if all(output.relative_l2 <= tolerance for output in verification.outputs):
        return verification
    noise = _noise(original, samples, room)
    for output, rounding in zip(verification.outputs, noise, strict=True):
        if not output.relative_l2 <= max(tolerance, NOISE_FACTOR * rounding):
            changed = f"output {output.name} changed by {output.relative_l2:.2g} (relative L2)"
            raise BrokenPromiseError(f"{changed} in a step that must be exact to {tolerance:g}")
    return verification


def _noise(original: ModelSource, samples: Samples, room: Room) -> list[float]:
    """Return for each output how far (relative L2) optimized and plain runs of the original lie apart; 0 if unknown."""
    optimized = Runner.load(original, arena=room.arena)
    try:
        plain = Runner.load(original, optimized=False, arena=room.arena)
        outputs = compare(plain, optimized, samples, runnable_size(plain, samples, room))
    except NotRunnable:
        return [0.0] * len(optimized.outputs)
    return [output.relative_l2 if math.isfinite(output.relative_l2) else 0.0 for output in outputs]
