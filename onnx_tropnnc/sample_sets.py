"""The samples of one compression: those to solve on, and those held back to verify on."""

from dataclasses import dataclass

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.samples import samples_for, samples_wanted
from onnx_tropnnc.inputs.variants import with_variants
from onnx_tropnnc.options import Options
from onnx_tropnnc.running.sessions import NotRunnable, Runner, runtime_missing

__all__ = ["SampleSets", "draw_samples"]


@dataclass(frozen=True)
class SampleSets:
    """The samples to solve on, and those to verify on; None where nothing can be run or nothing is wanted."""

    solving: Samples | None = None
    verifying: Samples | None = None

    @property
    def nbytes(self) -> int:
        """Return the size of all arrays together."""
        both = (part for part in (self.solving, self.verifying) if part is not None)
        return sum(array.nbytes for part in both for array in part.arrays.values())


def draw_samples(model: Model, options: Options) -> SampleSets:
    """Return what to solve and to verify on: four fifths and one fifth of the user's samples, or of made-up ones.

    Where the user's samples are fewer than what is worth solving on, variants of them are solved on too
    (inputs/variants.py). All of the user's samples serve verification where nothing is solved, or where `reconstruct`
    is `synthetic` and made-up samples are solved on.
    """
    if runtime_missing() and options.data is None:
        return SampleSets()
    solves = (options.selects or options.solves) and _runs(model)
    given = None if options.data is None else samples_for(model, data=options.data)
    if given is None and not solves and not options.verify:
        return SampleSets()
    if given is not None and not solves:
        return SampleSets(None, given)
    if given is not None and options.reconstruct != "synthetic":
        solving, verifying = given.split()
        wanted = samples_wanted(model)
        return SampleSets(with_variants(solving.thinned(wanted), wanted, options.seed), verifying)
    try:
        made = samples_for(model, ranges=options.input_range, seed=options.seed).split()
    except SampleError:
        if options.input_shape or options.input_range:
            raise
        # The model is compressed by its weights; verification then says which shape is missing.
        return SampleSets(None, given)
    return SampleSets(made[0] if solves else None, given or made[1])


def _runs(model: Model) -> bool:
    """Return whether onnxruntime loads the original; verification says why where it does not."""
    try:
        Runner.load(model.source)
    except NotRunnable:
        return False
    return True
