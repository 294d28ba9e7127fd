"""Compare a compressed model with its original: both run on the same samples, and are timed in turn.

The measures are those of differences.py. Where onnxruntime cannot load or run the original, nothing can be said of the
result, and `not_verified` gives the reason. Where only the result fails, this package broke it: BrokenPromiseError.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.comparison import ANY_ROOM, Room, compare, load_result, runnable_size
from onnx_tropnnc.running.differences import OutputDifference
from onnx_tropnnc.running.latency import Latency, measure_latency
from onnx_tropnnc.running.likely_agreement import LikelyAgreement
from onnx_tropnnc.running.sessions import ModelSource, Runner

__all__ = ["Verification", "verify"]


# How many times as far from 1 the cosine of embeddings is on sentences as on made-up words: 1.6 times with two layers
# of MiniLM, 1.9 and 3.1 times with six, and 2.5 times where no layers were fitted jointly.
SENTENCES_FACTORS = 1.6, 3.1

# A cosine this near to 1 is that of a model that computes the same.
NEARLY_EQUAL = 1 - 1e-4


@dataclass(frozen=True)
class Verification:
    """What was measured, or why nothing was; `shortfalls` are the demands that the result does not meet."""

    outputs: tuple[OutputDifference, ...] = ()
    latency: Latency | None = None
    samples: int = 0
    source: str = ""
    not_verified: str | None = None
    shortfalls: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What the reader should know about the figures."""
    made_up: bool = True
    """Whether the samples were made up; false where the user gave them."""

    @property
    def agreement(self) -> float | None:
        """Return the lowest agreement on the samples, in percent, of all outputs that are rows of scores."""
        return min((o.agreement for o in self.outputs if o.agreement is not None), default=None)

    @property
    def likely_agreement(self) -> LikelyAgreement | None:
        """Return the lowest agreement to expect on real samples of all outputs that are rows of scores."""
        likely = (o.likely_agreement for o in self.outputs if o.likely_agreement is not None)
        return min(likely, key=lambda found: found.middle, default=None)

    @property
    def cosine(self) -> float | None:
        """Return the lowest cosine of all outputs."""
        return min((o.cosine for o in self.outputs), default=None)

    @property
    def relative_l2(self) -> float | None:
        """Return the largest relative error of all outputs."""
        return max((o.relative_l2 for o in self.outputs), default=None)

    @property
    def passed(self) -> bool:
        """Return whether every demand was met and no value became NaN or infinite."""
        return not self.shortfalls


def verify(
    original: ModelSource,
    result: ModelSource,
    samples: Samples,
    *,
    min_agreement: float | None = None,
    min_cosine: float | None = None,
    timing_seconds: float = 2.0,
    room: Room = ANY_ROOM,
    statistics_known: bool = False,
) -> Verification:
    """Compare both models on all samples, then time them.

    Values that are NaN or infinite in the result alone fail the verification whatever is demanded. `statistics_known`
    says whether the original had BatchNormalization, which matters for what made-up samples tell of real ones.

    Raises:
        BrokenPromiseError: only the result cannot be loaded or run, or its outputs have other names or shapes.
    """
    try:
        before = Runner.load(original, arena=room.arena)
        size = runnable_size(before, samples, room)
    except NotRunnable as error:
        return Verification(
            source=samples.source,
            made_up=samples.made_up,
            not_verified=str(error),
            shortfalls=("nothing could be verified",) if (min_agreement, min_cosine) != (None, None) else (),
        )
    after = load_result(result, before, arena=room.arena)
    outputs = compare(before, after, samples, size, statistics_known=statistics_known)
    del before, after  # sessions keep the memory of their largest run
    latency = None
    if timing_seconds:
        latency = measure_latency(original, result, samples, timing_seconds=timing_seconds, arena=room.arena)
    shortfalls = _shortfalls(outputs, min_agreement, min_cosine)
    notes = _notes(outputs, samples)
    return Verification(outputs, latency, samples.count, samples.source, None, shortfalls, notes, samples.made_up)


def _notes(outputs: Sequence[OutputDifference], samples: Samples) -> tuple[str, ...]:
    """Return what the figures do not show by themselves."""
    notes = list(samples.notes)
    if samples.labels is not None and all(o.top1_before is None for o in outputs):
        notes.append("the labels fit no output: no row of scores has one for each label")
    for o in outputs:
        if o.nonfinite_before:
            counts = f"{o.nonfinite_before} NaN or infinite values on these samples, the result {o.nonfinite_after}"
            notes.append(f"output {o.name}: the original itself gives {counts}; they are left out of the comparison")
        if o.runs_resized:
            notes.append(
                f"output {o.name} has another size in the result than in the original in {o.runs_resized} runs, "
                "which are left out of the comparison"
            )
        if samples.has_loose_words and o.agreement is None and o.cosine < NEARLY_EQUAL:
            high, low = (1 - factor * (1 - o.cosine) for factor in SENTENCES_FACTORS)
            notes.append(
                f"output {o.name}: the cosine is that of made-up words without an order, and probably {low:.3f} to "
                f"{high:.3f} on sentences; give samples, or put the tokenizer.json of the model beside it"
            )
    return tuple(notes)


def _shortfalls(
    outputs: Sequence[OutputDifference], min_agreement: float | None, min_cosine: float | None
) -> tuple[str, ...]:
    """Return the demands that are not met, one sentence each."""
    found = [
        f"output {o.name}: {o.nonfinite_new} values are NaN or infinite in the result but finite in the original"
        for o in outputs
        if o.nonfinite_new
    ]
    if min_agreement is not None:
        rows = [(o.name, o.likely_agreement) for o in outputs if o.likely_agreement is not None]
        if not rows:
            found.append("agreement cannot be measured: no output is a row of scores")
        found += [
            f"output {name}: agreement {likely.middle:.2f} % is below {min_agreement:g} %{likely.reservation}"
            for name, likely in rows
            if likely.middle < min_agreement
        ]
    if min_cosine is not None:
        found += [
            f"output {o.name}: cosine {o.cosine:.6f} is below {min_cosine:g}" for o in outputs if o.cosine < min_cosine
        ]
    return tuple(found)
