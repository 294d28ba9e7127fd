"""Compare the model under work with its original, through onnxruntime.

before  a claim
after   relative L2 error, cosine, largest difference, top-1 agreement, latency of both; or `not verified: REASON`
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from onnx_tropnnc.changes import Change, Verified
from onnx_tropnnc.errors import NotRunnable, SampleError
from onnx_tropnnc.graph.input_specs import run_size
from onnx_tropnnc.graph.knowledge import knows_statistics
from onnx_tropnnc.graph.memory import MEMORY, run_bytes
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, save, to_proto, weight_bytes
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.comparison import Room
from onnx_tropnnc.running.exactness import assert_same, exact_tolerance
from onnx_tropnnc.running.latency import Latency, measure_latency
from onnx_tropnnc.running.made_up_samples import made_up_samples, original_runner
from onnx_tropnnc.running.verification import Verification, verify

__all__ = ["CheckExactness", "VerifyOutputs"]

# Bytes of weights up to which the result is run from memory; larger results are written to a file.
# A proto, its serialization and the buffer that this grows in are three more copies of the weights.
IN_MEMORY = 64 * 2**20

# Samples that show whether a step was exact: an error of a rewrite shows on nearly every sample.
_FEW = 8


@dataclass(frozen=True)
class VerifyOutputs:
    """Measure how far the result is from the original.

    Attributes:
        samples: what both run on; None: made up for each model.
        min_agreement: percent of top-1 agreement that the result must reach.
        min_cosine: cosine that every output must reach.
        timing_seconds: how long both models are timed; 0: not at all.
        seed: of samples that are made up.
        refusal: why the model is run on no samples, where that is known already.
    """

    samples: Samples | None = None
    min_agreement: float | None = None
    min_cosine: float | None = None
    # medians of two seconds differ by a few percent from one measurement to the next on an idle machine
    timing_seconds: float = 2.0
    seed: int = 0
    refusal: str | None = None
    memory: int = MEMORY
    name: str = "verify outputs"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Run both models on the same samples."""
        return (Verified(self.compare(model)),)

    def without_timing(self) -> "VerifyOutputs":
        """Return the same comparison with no latency in it."""
        return replace(self, timing_seconds=0.0)

    def latency(self, model: Model, seconds: float = 1.0) -> Latency:
        """Return the times of both models, run in turn; NotRunnable where onnxruntime cannot run them."""
        try:
            samples = self._drawn(model)
        except SampleError as error:
            raise NotRunnable(str(error)) from error
        room = _room(model, samples, self.memory)
        with _runnable(model) as result:
            return measure_latency(model.source, result, samples, timing_seconds=seconds, arena=room.arena)

    def compare(self, model: Model) -> Verification:
        """Return what a comparison of both models finds, or why nothing could be compared."""
        try:
            samples = self._drawn(model)
        except SampleError as error:
            demands = self.min_agreement is not None or self.min_cosine is not None
            return Verification(not_verified=str(error), shortfalls=("nothing could be verified",) if demands else ())
        room = _room(model, samples, self.memory)
        with _runnable(model) as result:
            return verify(
                model.source,
                result,
                samples,
                min_agreement=self.min_agreement,
                min_cosine=self.min_cosine,
                timing_seconds=self.timing_seconds,
                room=room,
                statistics_known=knows_statistics(model.graph),
            )

    def _drawn(self, model: Model) -> Samples:
        if self.samples is None and self.refusal is not None:
            raise SampleError(self.refusal)
        return self.samples or _made_up(model, self.seed)


@dataclass(frozen=True)
class CheckExactness:
    """Check that no pass so far has changed an output by more than `tolerance`, relative L2; None: that of its type.

    Raises:
        BrokenPromiseError: an output differs by more; that is a defect of this package, and nothing is written.
    """

    samples: Samples | None = None
    tolerance: float | None = None
    seed: int = 0
    memory: int = MEMORY
    name: str = "check that folding was exact"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Return nothing where it holds, or where onnxruntime cannot run the original (verification says so)."""
        try:
            samples = self.samples or _made_up(model, self.seed)
        except SampleError:
            return ()
        with _runnable(model) as result:
            tolerance = self.tolerance or exact_tolerance(model)
            assert_same(model.source, result, samples.first(_FEW), tolerance, _room(model, samples, self.memory))
        return ()


def _made_up(model: Model, seed: int) -> Samples:
    """Return samples that fit the original: what it says of its inputs may be gone from the model under work."""
    original = load(model.source, input_shapes=model.input_shapes)
    return made_up_samples(original, original_runner(original), seed=seed).samples.split()[1]


def _room(model: Model, samples: Samples, memory: int) -> Room:
    """Return what runs on these samples may take; the original's tensors are as large as the model's, or larger."""
    if not samples.count:
        return Room(memory)
    return Room(memory, run_bytes(model, samples.run_shapes) // (run_size(samples.inputs) or 1))


@contextmanager
def _runnable(model: Model) -> Iterator[onnx.ModelProto | Path]:
    """Yield the model in a form that onnxruntime loads: in memory, or as a file that is removed afterwards."""
    if weight_bytes(model) <= IN_MEMORY:
        yield to_proto(model)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.onnx"
        save(model, path)
        yield path
