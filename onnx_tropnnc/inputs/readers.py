"""Samples that a program gives: arrays by input name, or a reader as ONNX Runtime's quantizer takes it.

    class Reader(onnxruntime.quantization.CalibrationDataReader):
        def get_next(self): ...          {"image": array of (batch, ...)} or None at the end

A reader is read to its end, and its batches are concatenated along the sample axis.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.input_specs import InputSpec, stacked_inputs

__all__ = ["Arrays", "Data", "DataReader", "read_all"]

Arrays = Mapping[str, NDArray[Any]]


@runtime_checkable
class DataReader(Protocol):
    """A CalibrationDataReader of onnxruntime.quantization, or an object with its method."""

    def get_next(self) -> Mapping[str, Any] | None:
        """Return the next feed, or None at the end."""


Data = str | Path | Arrays | DataReader
"""A .npz file, a folder of .npy files, arrays by input name, or a reader."""


def read_all(reader: DataReader, specs: Sequence[InputSpec]) -> Arrays:
    """Return all that the reader gives, with samples on axis 0.

    Raises:
        SampleError: it gives nothing, or feeds that do not fit together.
    """
    feeds: list[Mapping[str, Any]] = []
    while (feed := reader.get_next()) is not None:
        feeds.append(feed)
    if not feeds:
        raise SampleError("the data reader gives no samples; if it was read before, give a new one or rewind it")
    stacked = stacked_inputs(specs)
    found = {}
    for name in (spec.name for spec in specs if all(spec.name in feed for feed in feeds)):
        parts = [np.asarray(feed[name]) for feed in feeds]
        try:
            found[name] = np.concatenate(parts) if name in stacked else np.stack(parts)
        except ValueError as error:
            raise SampleError(f"the data reader's feeds of {name} do not fit together: {error}") from None
    return found
