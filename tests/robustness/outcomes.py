"""What to ask of a compressed model: it is valid, it runs, and where only duplicates went it computes the same."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from onnx_tropnnc import compress
from onnx_tropnnc.errors import TropnncError

__all__ = ["Arrays", "Outcome", "Trial", "attempt", "compressed", "run", "weights"]

Arrays = dict[str, NDArray[np.generic]]
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Outcome:
    """`problem` is None where everything held; `skipped` says why nothing was tried."""

    case: str
    problem: str | None = None
    skipped: str | None = None
    merged: bool = False


def run(model: onnx.ModelProto, feeds: Arrays) -> list[NDArray[np.generic]] | str:
    """Return the outputs, or why onnxruntime does not give them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(value) for value in session.run(None, feeds)]
    except Exception as error:
        return " ".join(str(error).split())[:200]


@dataclass(frozen=True)
class Trial:
    """What is wrong with a compressed model, None where nothing is; and whether it has fewer weights."""

    problem: str | None
    smaller: bool = False


def attempt(
    model: onnx.ModelProto, ratio: float, feeds: Arrays, expected: Sequence[NDArray[np.generic]] | None
) -> Trial:
    """Compress the model, and return what came of it; without `expected` the result need only run."""
    untouched = model.SerializeToString()
    try:
        result = compressed(model, ratio)
    except TropnncError as error:
        return Trial(f"ratio {ratio}: refused: {error}")
    if model.SerializeToString() != untouched:
        return Trial(f"ratio {ratio}: the input was changed")
    found = run(result, feeds)
    if isinstance(found, str):
        return Trial(f"ratio {ratio}: the result does not run: {found}")
    same = expected is None or all(y.shape == z.shape and _close(y, z) for y, z in zip(expected, found, strict=True))
    return Trial(None if same else f"ratio {ratio}: outputs differ", weights(result) < weights(model))


def weights(model: onnx.ModelProto) -> int:
    """Elements of the initializers."""
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


def _close(y: NDArray[np.generic], z: NDArray[np.generic]) -> bool:
    if y.dtype.kind not in "fV" or y.dtype.itemsize < 4:
        return y.dtype == z.dtype
    scale = float(np.abs(np.where(np.isfinite(y), y, 0)).max(initial=0.0))
    return bool(np.allclose(y, z, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True))


def compressed(model: onnx.ModelProto, ratio: float, *, exactly: bool = False) -> onnx.ModelProto:
    """Merged alone, residual streams too; `exactly` without rounded counts, for which some duplicates stay."""
    return compress(
        model,
        ratio=ratio,
        verify=False,
        ties="merge",
        method="tropnnc",
        reconstruct="off",
        round_to=1 if exactly else "auto",
    )[0]
