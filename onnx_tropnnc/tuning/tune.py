"""tune(): let all weights of a compressed model learn together from the original.

    start    a compressed model, each of its layers solved by itself
    learn    all weights together, so that outputs and shared tensors come out as the original's; no labels are used
    keep     the weights that were best on samples held out of the learning, where they are better than the start's

Samples of the user are learnt from as they are. On made-up ones both models run adjusted to the statistics of folded
BatchNormalizations (adjusting.py), and the samples are others than those that layers were solved on.

How long it learns is a budget of multiply-accumulates and not of seconds, so that the same input gives the same output.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.choices import Effort
from onnx_tropnnc.errors import NotDifferentiable, NotRunnable
from onnx_tropnnc.graph.constants import dims_of, name_of
from onnx_tropnnc.graph.input_specs import run_size
from onnx_tropnnc.graph.memory import tensor_bytes
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import infer_shapes
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.variants import with_variants
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.tuning.adjusting import adjusted
from onnx_tropnnc.tuning.batching import Unbatched, batch_shapes, batched
from onnx_tropnnc.tuning.centring import centres_of
from onnx_tropnnc.tuning.distillation import Student, Training, trainable_weights, write_weights
from onnx_tropnnc.tuning.targets import Targets, shared_tensors, teaches

__all__ = ["BUDGETS", "Tuning", "looks", "tune"]

# Multiply-accumulates of tuning. One core does about 20,000,000,000 of them a second, in this kind of graph, so that
# these are 50 and 500 seconds of one core: a minute and ten for all that a command does.
BUDGETS: Mapping[Effort, int] = {"quick": 0, "standard": 1_000_000_000_000, "thorough": 10_000_000_000_000}

NO_MERGES: Mapping[str, MergeMap] = MappingProxyType({})

# Samples a step: as many as leave ENOUGH_STEPS. MobileNetV1 learns from 47 steps of 16 pictures, but not from 41 of 8.
BATCH, SMALLEST_BATCH = 64, 16

# How many times a run with gradients holds as much as all tensors of a forward run: these, their gradients, the
# targets, and what operators need. EfficientNet-lite0, whose tensors take 52 MB a sample, takes 230 MB a sample.
TENSORS_OF_A_RUN = 5

# A budget that pays for more is spent on larger batches first; 300 and 560 steps were measured, not 400 itself.
ENOUGH_STEPS = 400

# Every eighth sample is held out, and about so many of thousands: with all of ResNet20's 5,120 judging would take a
# third of the time.
HELD_OUT, MOST_HELD_OUT = 8, 192

# The part of the budget that judging may take, as its inverse: of EfficientNet-lite0's 55 held out it would be a fifth.
JUDGING = 20

# Samples on which models are adjusted: moments of so many, at hundreds of positions, are those of all.
ADJUSTED_ON = 1024

# How many times a sample is learnt from where it is a colour picture: as it is, and once for each of its variants.
VARIANTS = 4

# How many times each sample may be learnt from, variants of it included: 512 pictures overfit after 200.
EPOCHS = 80

# The same for made-up samples, which are not what the network will see: in small batches. Learning 24 times from each
# instead of 8 times brings ResNet8 at 0.3 of its parameters from 54.5 to 56.9 %, and ResNet20 at half from 73.3 to
# 74.6 % on 128 pictures; from 160 pictures ResNet8 learns more in 24 times (68.5 %) than in 80 (67.3 %).
MADE_UP_EPOCHS, MADE_UP_BATCH = 24, 16

# What the rate is multiplied by on samples of the user, whose gradient may be followed further than that of made-up
# ones. With 512 images ResNet20 at 0.3 of its parameters keeps 81.3, 81.5 and 82.0 % at 2, 3 and 6 times the rate,
# ResNet8 at half 79.3 and 79.8 % at 1 and 3 times.
REAL_RATE = 3.0

# From so many steps on the rate falls with the root of their number, for what many steps add up must not grow with it:
# in 94,686 steps mnist_fc at ratio 0.9 keeps 88.8 % at the whole rate, 90.6 at half and 91.1 at a quarter of it. Up to
# 4,500 steps were taken at the whole rate by ResNet20.
MANY_STEPS = 6000

# Fewer are all warm-up.
FEWEST_STEPS = 20

# What the rate is divided by in turn until learning helps: a guess; four networks took the rate as it is.
SLOWER = (1, 4)

# Multiply-accumulates of a step, in units of the forward pass: that, and the gradients of inputs and of weights.
COST_OF_A_STEP = 3

# What a step costs besides, in multiply-accumulates: for each element that the model makes of a sample, which a dozen
# operators read and write on the way back, and for each weight, which Adam moves once a step. With them ResNet20,
# MobileNetV1 and EfficientNet-lite0 do about 20 thousand million a second on one core; without them, 16, 14 and 12.
COST_OF_AN_ELEMENT, COST_OF_A_WEIGHT = 50, 150


@dataclass(frozen=True)
class Tuning:
    """How a model is tuned.

    Attributes:
        budget: multiply-accumulates that the whole may take.
        rate: of Adam, in units of each weight tensor's typical size.
        memory: bytes that the original's tensors and a step may take, half each; tensors beyond are computed at every
            step anew.
        seed: of the order of samples and of their variants.
    """

    budget: int
    rate: float = 0.01
    memory: int = 2**30
    seed: int = 0


def tune(
    model: Model, reference: Model, samples: Samples, how: Tuning, merges: Mapping[str, MergeMap] = NO_MERGES
) -> tuple[Change, ...]:
    """Change the model's weights so that it computes more nearly what `reference` does; say what came of it.

    Args:
        model: the compressed model; its constants are changed in place where that makes it better.
        reference: the model before it was compressed, its tensors under the same names.
        samples: what to learn from, each once: variants are made here.
        how: how long and how fast.
        merges: what was merged, by group.
    """
    try:
        # errors that are not finite are never smaller than those before
        with np.errstate(over="ignore", invalid="ignore"):
            return _tune(model, reference, samples, how, merges)
    except (NotDifferentiable, NotRunnable) as error:
        return (Note(f"not tuned: {error}"),)


def _tune(
    model: Model, reference: Model, samples: Samples, how: Tuning, merges: Mapping[str, MergeMap]
) -> tuple[Change, ...]:
    pair = adjusted(model, reference, samples.thinned(ADJUSTED_ON), merges, how.memory)
    if isinstance(pair, Unbatched):
        return (Note(f"not tuned on made-up inputs: {pair.reason}"),)
    before = pair.student.clone()
    changes = _learnt(pair.student, pair.teacher, samples, how)
    pair.carry(model, before)
    return changes


def _learnt(model: Model, reference: Model, samples: Samples, how: Tuning) -> tuple[Change, ...]:
    """Let the model learn from a reference that is like it on these samples."""
    learning, held = samples.split(max(HELD_OUT, samples.count // MOST_HELD_OUT))
    variants, share = (1, 1.0) if samples.made_up else (VARIANTS, REAL_RATE)
    single = (Training.judged + 1) * (_sample_macs(model, held) + _sample_macs(reference, held))
    held = held.thinned(max(SMALLEST_BATCH, how.budget // (JUDGING * single)))
    pace = _pace(model, reference, learning, variants, replace(how, budget=how.budget - single * held.count))
    if isinstance(pace, Note):
        return (pace,)
    portion = pace.portion
    student, teacher = (batched(each, samples, portion) for each in (model, reference))
    for whole in (student, teacher):
        if isinstance(whole, Unbatched):
            return (Note(f"not tuned: {whole.reason}"),)
    assert isinstance(student, Model) and isinstance(teacher, Model)
    learning = with_variants(learning, variants * learning.count, how.seed)
    shapes = infer_shapes(student, batch_shapes(samples, portion))
    outputs = [name_of(value) for value in student.graph.outputs if None not in shapes.get(name_of(value), (None,))]
    inner = shared_tensors(student, teacher, shapes, infer_shapes(teacher, batch_shapes(samples, portion)))
    names = [*outputs, *inner]
    elements = sum(np.prod([int(size or 1) for size in shapes[name]], dtype=np.int64) for name in names)
    # float32, for every sample; the step takes the other half
    keep = int(4 * elements // portion) * (learning.count + held.count) <= how.memory // 2
    steps = pace.steps if keep else pace.steps_without_kept_targets
    if steps < FEWEST_STEPS:
        return (_too_few_steps(steps, pace.batch),)
    targets = Targets.of(teacher, names, learning, portion, keep=keep)
    judging = Targets.of(teacher, names, held, portion, keep=keep)
    scales = targets.scales(4 * pace.batch)
    if not any(teaches(scales[name]) for name in outputs):
        return (Note("not tuned: no output of the original varies on the samples, in finite numbers"),)
    centres = centres_of(student, learning.first(pace.batch), portion)
    trained = Student(student, shapes, samples, portion, scales, centres)
    share *= min(1.0, math.sqrt(MANY_STEPS / steps))
    for rate in (share * how.rate / slower for slower in SLOWER):
        before, after = trained.learn(targets, Training(steps, pace.batch, rate), judging, how.seed)
        if after < before:
            break
    notes = [Note(f"no gradient through {end.node}: {end.reason}") for end in trained.ended]
    if not after < before:
        return (*notes, Note(f"not tuned: {steps} steps made the error no smaller"))
    write_weights(model, trained.weights)
    errors = f"{100 * np.sqrt(before):.1f} % to {100 * np.sqrt(after):.1f} %"
    return (*notes, Note(f"all weights were tuned together in {steps} steps: their error went from {errors}"))


def _too_few_steps(steps: int, batch: int) -> Note:
    return Note(f"not tuned: the budget is enough for {max(0, steps)} steps of {batch} samples")


@dataclass(frozen=True)
class _Pace:
    """How the budget is spent.

    Attributes:
        portion: samples a run, as many as fit in memory.
        batch: samples a step, which is one or more runs.
        steps: how many the budget pays for.
        steps_without_kept_targets: the same where the original runs once more in every step.
    """

    portion: int
    batch: int
    steps: int
    steps_without_kept_targets: int


def _pace(model: Model, reference: Model, learning: Samples, variants: int, how: Tuning) -> _Pace | Note:
    """Return how the budget is spent, or why it cannot be.

    Args:
        model: what learns.
        reference: what it learns from, which is run once on all variants of all samples.
        learning: the samples.
        variants: how many variants there are of each, itself included.
        how: the budget without what judging takes, and the memory, of which a run takes at most half.
    """
    fitting = how.memory // (2 * TENSORS_OF_A_RUN * _sample_bytes(model, learning))
    if not fitting:
        return Note("not tuned: the gradients of one sample would not fit in --memory")
    cost, original = _sample_cost(model, learning), _sample_macs(reference, learning)
    most, epochs = (MADE_UP_BATCH, MADE_UP_EPOCHS) if learning.made_up else (BATCH, EPOCHS)
    left = how.budget - variants * learning.count * original
    batch = min(int(np.clip(left // (cost * ENOUGH_STEPS), SMALLEST_BATCH, most)), learning.count)
    # runs of about the same size, so that a step is no larger than it has to be
    runs = -(-batch // fitting)
    portion = -(-batch // runs)
    batch = min(portion * runs, learning.count // portion * portion)
    weights, longest = COST_OF_A_WEIGHT * _weights(model), epochs * learning.count // batch
    kept, anew = (total // (batch * each + weights) for total, each in ((left, cost), (how.budget, cost + original)))
    return _Pace(portion, batch, min(kept, longest), min(anew, longest))


def looks(model: Model, samples: Samples, budget: int) -> int:
    """Return how many samples like these the budget lets a model of this size learn from, one after the other."""
    return budget // (_sample_cost(model, samples) + COST_OF_A_WEIGHT * _weights(model) // MADE_UP_BATCH)


def _sample_cost(model: Model, samples: Samples) -> int:
    """Return the multiply-accumulates that a sample of a step costs."""
    return COST_OF_A_STEP * _sample_macs(model, samples) + COST_OF_AN_ELEMENT * _sample_bytes(model, samples) // 4


def _sample_macs(model: Model, samples: Samples) -> int:
    """Return the multiply-accumulates of one sample; 1 where they are not known."""
    macs = size_of(model, infer_shapes(model, samples.run_shapes)).macs or 0
    return max(1, macs // (run_size(samples.inputs) or 1))


def _weights(model: Model) -> int:
    """Return how many numbers may learn."""
    return sum(math.prod(dims_of(value) or ()) for value in trainable_weights(model).values())


def _sample_bytes(model: Model, samples: Samples) -> int:
    """Return the bytes of all tensors that the model makes of a sample."""
    shapes = infer_shapes(model, samples.run_shapes)
    total = sum(tensor_bytes(value, shapes) for node in model.graph for value in node.outputs)
    return max(1, total // (run_size(samples.inputs) or 1))
