"""The samples of one compression: those to solve on, and those held back to verify on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnx_tropnnc.choices import Effort
from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.input_specs import GivenShapes
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import PARTS, Samples, joined
from onnx_tropnnc.inputs.filling import beside, can_be_filled, filled_up
from onnx_tropnnc.inputs.samples import SHARE, samples_for, samples_wanted
from onnx_tropnnc.inputs.text_variants import with_recombined_texts
from onnx_tropnnc.inputs.tokenized import tokenizer_beside
from onnx_tropnnc.inputs.variants import with_variants
from onnx_tropnnc.options import Options
from onnx_tropnnc.running.answers import answered, balanced
from onnx_tropnnc.running.made_up_samples import first_shapes, made_up_samples, original_runner, unpadded
from onnx_tropnnc.running.run_limits import reason_of_size, reason_of_time
from onnx_tropnnc.running.sessions import Runner, runtime_missing
from onnx_tropnnc.tuning.tune import BUDGETS, VARIANTS, looks

__all__ = ["LEARNING_SETS", "SampleSets", "draw_samples", "sized_by", "user_samples"]

# How many sets of made-up samples all weights learn from at most: more samples are worth more than more looks at the
# same ones. In 450 steps ResNet8 at half of its parameters keeps 70.0 % with one set and 70.7 % with four; in many more
# steps it keeps 71.4 % with one set and 73.8 % with four.
LEARNING_SETS: Mapping[Effort, int] = {"quick": 0, "standard": 4, "thorough": 16}

# From how many sets of made-up pictures those to solve on are chosen, where a classifier's answers are balanced.
# ResNet8 at half of its parameters keeps 67.2 % as they are drawn, 69.3 % with two sets and 70.1 % with four (means of
# two seeds). Each set takes two seconds, which are much of what `quick` takes and little of a minute.
BALANCED_SETS: Mapping[Effort, int] = {"quick": 2, "standard": 4, "thorough": 4}

# Fewer pictures of the user are learnt from beside made-up ones, for they would be learnt by heart. ResNet20 at half of
# its parameters, alone and beside 1,500 made-up ones: 83.0 and 85.2 % with 39 pictures, 84.9 and 85.8 % with 77, but
# 86.4 and 85.8 % with 192, 88.2 and 86.7 % with 410. MobileNetV1 keeps 58.9 and 61.5 % with 39 of them.
FEW_PICTURES = 128


@dataclass(frozen=True)
class SampleSets:
    """The samples to solve on, and those to verify on; None where nothing can be run or nothing is wanted."""

    solving: Samples | None = None
    verifying: Samples | None = None
    input_shapes: GivenShapes | None = None
    """What the model's `input_shapes` must be to agree with the samples; None: what they are."""
    learning: Samples | None = None
    """What all weights may learn from: the user's samples, made-up ones that no layer is solved on, or both."""
    refusal: str | None = None
    """Why the model is run on no samples: none could be made up that it takes, or a run takes too much."""

    @property
    def nbytes(self) -> int:
        """Return the size of all arrays together."""
        both = (part for part in (self.solving, self.verifying) if part is not None)
        return sum(array.nbytes for part in both for array in part.arrays.values())


def user_samples(model: Model, options: Options) -> Samples | None:
    """Return the samples that the user gives, or None. A reader of batches can be read only once.

    Raises:
        SampleError: they do not fit the model, or contradict a shape that the user gives.
    """
    return None if options.data is None else samples_for(model, data=options.data)


def sized_by(model: Model, given: Samples | None) -> Model:
    """Return the model with open dimensions as the user's samples have them, on which all costs then count."""
    return model if given is None else replace(model, input_shapes=given.input_shapes)


def draw_samples(
    model: Model, options: Options, *, solves: bool | None = None, given: Samples | None = None
) -> SampleSets:
    """Return what to solve and to verify on: four fifths and one fifth of the user's samples, or of made-up ones.

    Where the user's samples are fewer than what is worth solving on, variants of them are solved on too
    (inputs/variants.py, inputs/text_variants.py), and unless `reconstruct` is `data` made-up pictures beside them
    (inputs/filling.py), or sentences where the model's tokenizer is at hand. All of the user's samples serve
    verification where nothing is solved, or where `reconstruct` is `synthetic` and made-up samples are solved on.

    Args:
        model: the model, as it was loaded.
        options: how the samples are to be used.
        solves: whether anything is selected or solved on samples; None: what the options say.
        given: the user's samples, where they were read already.

    Raises:
        SampleError: the user's samples or sizes do not fit the model.
    """
    given = user_samples(model, options) if given is None else given
    found = _drawn(sized_by(model, given), options, options.runs_samples if solves is None else solves, given)
    return found if given is None else replace(found, input_shapes=given.input_shapes)


def _drawn(model: Model, options: Options, wants_to_solve: bool, given: Samples | None) -> SampleSets:
    if runtime_missing() and given is None:
        return SampleSets()
    runs, memory = wants_to_solve or options.verify, options.memory_bytes
    # before the original is loaded: onnxruntime computes constants already then
    shapes = first_shapes(model) if given is None else given.run_shapes
    if runs and shapes is not None and (reason := reason_of_size(model, shapes, memory)):
        return SampleSets(refusal=reason)
    original = original_runner(model) if runs else None
    if given is not None and original is not None and (reason := reason_of_time(model, original, given)):
        return SampleSets(refusal=reason)
    solves = wants_to_solve and original is not None
    if given is not None:
        given = unpadded(given, original)
    if given is None and not solves and not options.verify:
        return SampleSets()
    if given is not None and not solves:
        return SampleSets(None, given)
    if given is not None and options.reconstruct != "synthetic":
        solving, verifying = given.split()
        wanted = samples_wanted(model, memory)
        solving = solving.thinned(wanted)
        varied = with_variants(solving, wanted, options.seed)
        if options.reconstruct == "auto":
            varied = _with_sentences(model, varied, original, wanted, options)
        varied = with_recombined_texts(varied, wanted, options.seed)
        if options.reconstruct == "auto":
            varied = filled_up(model, varied, wanted, seed=options.seed, memory=memory)
        return SampleSets(varied, verifying, learning=_learning_samples(model, original, options, solving))
    try:
        found = made_up_samples(
            model, original, ranges=options.input_range, seed=options.seed, memory=memory, verifying=not solves
        )
    except SampleError as error:
        if options.input_shape or options.input_range:
            raise
        # our guess was wrong, not the file: the model is compressed by its weights, and verification gives the reason
        return SampleSets(None, given, refusal=str(error))
    samples = unpadded(found.samples, original)
    if not solves:
        return SampleSets(None, given or samples, found.shapes)
    solving, verifying = samples.split()
    # only what is solved on: how far an agreement on made-up samples is to be trusted was measured as they are drawn
    solving = answered(model, original, solving)
    if solving.answers is not None:
        others = _to_choose_from(model, original, options, solving)
        solving = balanced(joined([solving, *others]), solving.count, options.seed)
    learning = _learning_samples(model, original, options, None)
    return SampleSets(solving, given or verifying, found.shapes, learning=learning)


def _with_sentences(model: Model, samples: Samples, original: Runner | None, wanted: int, options: Options) -> Samples:
    """Return a user's few texts, half as many as wanted, with sentences of the package behind them.

    They stay as they are where they are no texts, or no tokenizer lies beside the model.
    """
    if samples.lengths is None or samples.count >= wanted // 2 or tokenizer_beside(model.source) is None:
        return samples
    own = with_recombined_texts(samples, wanted - wanted // 2, options.seed)
    count, memory = wanted - own.count, options.memory_bytes
    made = samples_for(model, count=count, seed=options.seed, memory=memory, shapes=own.run_shapes)
    made = unpadded(made, original)
    # without parts they are no sentences
    if made.lengths is None or made.parts is None:
        return samples
    parts = np.arange(own.count) % PARTS if own.parts is None else own.parts
    both = joined([replace(own, labels=None, parts=parts), made])
    assert both.lengths is not None
    return both.take(np.argsort(-both.lengths, kind="stable"))


def _learning_samples(model: Model, original: Runner | None, options: Options, own: Samples | None) -> Samples | None:
    """Return what all weights learn from: the user's samples, or made-up ones; None where none learn.

    A user's few pictures are learnt from with variants of them and made-up ones beside them. These count as made up, so
    that no variants are made of them once more.
    """
    if own is not None and (own.count >= FEW_PICTURES or options.reconstruct != "auto" or not can_be_filled(own)):
        return own
    others = _others(model, original, options)
    if others is None:
        return own
    if own is not None:
        others = beside(with_variants(own, VARIANTS * own.count, options.seed), others)
    return answered(model, original, others)


def _others(model: Model, original: Runner | None, options: Options) -> Samples | None:
    """Return made-up samples that no layer is solved on; None where nothing learns.

    Layers were fitted to the others, the last one nearly exactly, so that those would teach next to nothing.
    """
    sets = LEARNING_SETS[options.effort]
    if not sets:
        return None
    seeds = range(options.seed + 1, options.seed + 1 + sets)
    # what comes out has fewer weights and looks at each sample about twice
    drawn = _sets_of(model, original, options, seeds, lambda first: looks(model, first, BUDGETS[options.effort]))
    return unpadded(joined(drawn), original)


def _to_choose_from(model: Model, original: Runner | None, options: Options, first: Samples) -> list[Samples]:
    """Return made-up samples like the first ones, with the original's answers; none where they do not fit in memory."""
    if 2 * sum(array.nbytes for array in first.arrays.values()) > options.memory_bytes // SHARE:
        return []
    start = options.seed + 1 + max(LEARNING_SETS.values())
    seeds = range(start, start + BALANCED_SETS[options.effort] - 1)
    drawn = _sets_of(model, original, options, seeds, lambda first: len(seeds) * first.count)
    return [answered(model, original, each) for each in drawn]


def _sets_of(
    model: Model, original: Runner | None, options: Options, seeds: range, wanted: Callable[[Samples], int]
) -> list[Samples]:
    """Return a set of made-up samples for each seed, until there are as many as `wanted` says of the first one.

    Together they take no more memory than a single set may.
    """
    drawn: list[Samples] = []
    for seed in seeds:
        found = made_up_samples(model, original, ranges=options.input_range, seed=seed, memory=options.memory_bytes)
        drawn.append(found.samples)
        first = drawn[0]
        nbytes = sum(array.nbytes for array in first.arrays.values())
        enough = len(drawn) * first.count >= wanted(first)
        if enough or (len(drawn) + 1) * nbytes > options.memory_bytes // SHARE:
            break
    return drawn
