"""Compare the model under work with its original, through onnxruntime.

before  a claim
after   relative L2 error, cosine, largest difference, top-1 agreement, latency of both; or `not verified: REASON`
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnx_tropnnc.changes import Change, Verified
from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, save, to_proto, weight_bytes
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.exactness import assert_same, exact_tolerance
from onnx_tropnnc.running.latency import Latency, measure_latency
from onnx_tropnnc.running.made_up_samples import made_up_samples
from onnx_tropnnc.running.sessions import NotRunnable
from onnx_tropnnc.running.verification import Verification, verify

__all__ = ["CheckExactness", "VerifyOutputs"]

IN_MEMORY = 64 * 2**20
"""Bytes of weights: a proto, its serialization and the buffer that this grows in are three more copies."""

_FEW = 8
"""Samples that show whether a step was exact."""


@dataclass(frozen=True)
class VerifyOutputs:
    """Measure how far the result is from the original; `samples` are made up where none are given."""

    samples: Samples | None = None
    min_agreement: float | None = None
    min_cosine: float | None = None
    timing_seconds: float = 2.0
    seed: int = 0
    name: str = "verify outputs"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Both models run on the same samples."""
        return (Verified(self.compare(model)),)

    def latency(self, model: Model, seconds: float = 1.0) -> Latency:
        """Both models timed in turn; NotRunnable where onnxruntime cannot run them."""
        try:
            samples = self.samples or _made_up(model, self.seed)
        except SampleError as error:
            raise NotRunnable(str(error)) from error
        with _runnable(model) as result:
            return measure_latency(model.source, result, samples, timing_seconds=seconds)

    def compare(self, model: Model) -> Verification:
        """The comparison alone."""
        try:
            samples = self.samples or _made_up(model, self.seed)
        except SampleError as error:
            demands = self.min_agreement is not None or self.min_cosine is not None
            return Verification(not_verified=str(error), shortfalls=("nothing could be verified",) if demands else ())
        with _runnable(model) as result:
            return verify(
                model.source,
                result,
                samples,
                min_agreement=self.min_agreement,
                min_cosine=self.min_cosine,
                timing_seconds=self.timing_seconds,
            )


@dataclass(frozen=True)
class CheckExactness:
    """Everything up to here must not have changed an output: to `tolerance`, relative L2; None: as exact as its type.

    Raises:
        BrokenPromiseError: it has; that is a defect of this package, and nothing is written.
    """

    samples: Samples | None = None
    tolerance: float | None = None
    seed: int = 0
    name: str = "check that folding was exact"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Silent where it holds, or where onnxruntime cannot run the original (verification says so)."""
        try:
            samples = self.samples or _made_up(model, self.seed)
        except SampleError:
            return ()
        with _runnable(model) as result:
            assert_same(model.source, result, samples.first(_FEW), self.tolerance or exact_tolerance(model))
        return ()


def _made_up(model: Model, seed: int) -> Samples:
    """Samples that fit the original: what it says of its inputs may be gone from the model under work."""
    return made_up_samples(load(model.source, input_shapes=model.input_shapes), seed=seed).samples.split()[1]


@contextmanager
def _runnable(model: Model) -> Iterator[onnx.ModelProto | Path]:
    """The model in a form that onnxruntime loads: in memory, or where that takes much a file that goes away again."""
    if weight_bytes(model) <= IN_MEMORY:
        yield to_proto(model)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.onnx"
        save(model, path)
        yield path
