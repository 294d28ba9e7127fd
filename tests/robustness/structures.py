"""Models that are whole files but no longer sound: one to three mutations of real and of generated graphs.

The graphs are the trained models of models/, random graphs, and onnx's tests of operators between two layers; the
mutations change wires, ranks, types, attributes, dimensions, names, constants, external data, functions and versions.
Each case is a number, from which everything about it follows.
"""

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx

from . import file_mutations, tensor_mutations, wire_mutations
from .backend_nodes import case_names, sandwich
from .commands import problem_of, run_command
from .operator_models import OPERATOR_MODELS
from .operator_mutations import operator_attribute_changed
from .outcomes import Outcome
from .picking import Mutation
from .random_graphs import branching

__all__ = ["mutated", "mutated_model", "mutated_operators"]

MODELS = Path(__file__).parent.parent.parent / "models"
TRAINED = ("digits_depthwise", "digits_resnet_bn", "mnist_lenet")
"""The smaller trained models: a run on them takes a moment."""
MUTATIONS = (*wire_mutations.MUTATIONS, *tensor_mutations.MUTATIONS, *file_mutations.MUTATIONS)

COMMANDS: Sequence[Sequence[str]] = (
    *[("--ratio", "0.5", "--ties", "merge", "--no-verify", "--method", "tropnnc", "--reconstruct", "off")] * 3,
    ("--lossless",),
    ("--inspect",),
    ("--ratio", "0.3", "--memory", "0.2"),
    ("--target-params", "0.6", "--reconstruct", "off"),
    ("--ratio", "0.5", "--heads", "merge", "--no-verify", "--no-refit"),
)


OPERATOR_COMMANDS: Sequence[Sequence[str]] = (
    *[("--ratio", "0.5", "--ties", "merge", "--no-verify", "--method", "tropnnc", "--reconstruct", "off")] * 3,
    ("--ratio", "0.5", "--heads", "merge", "--memory", "0.2"),
    ("--ratio", "0.4", "--effort", "standard", "--memory", "0.2"),
    ("--target-macs", "0.6", "--min-agreement", "50", "--memory", "0.2"),
    ("--target-params", "0.7", "--streams", "rotate", "--memory", "0.2"),
    ("--lossless",),
    ("--inspect",),
)


def mutated(seed: int) -> Outcome:
    """Run the command on a mutated model."""
    rng = np.random.default_rng([seed, 1])
    options = COMMANDS[int(rng.integers(len(COMMANDS)))]
    return _tried(f"structure {seed}", *mutated_model(seed), options)


def mutated_operators(seed: int) -> Outcome:
    """Run the command on a mutated small model of recurrent layers, attention, fused or quantized operators."""
    rng = np.random.default_rng([seed, 2])
    base = list(OPERATOR_MODELS)[seed % len(OPERATOR_MODELS)]
    options = OPERATOR_COMMANDS[int(rng.integers(len(OPERATOR_COMMANDS)))]
    mutations = (*MUTATIONS, *[operator_attribute_changed] * len(MUTATIONS))
    return _tried(f"operators {seed}", *_mutated(OPERATOR_MODELS[base](), base, mutations, rng), options)


def _tried(case: str, model: onnx.ModelProto, name: str, options: Sequence[str]) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "in.onnx").write_bytes(model.SerializeToString())
        target = [] if "--inspect" in options else ["out.onnx"]
        ended = run_command(["in.onnx", *target, *options, "--quiet"], Path(folder))
        problem = problem_of(ended, Path(folder), writes=bool(target))
    return Outcome(f"{case} ({name}; {' '.join(options)})", problem, merged=ended.code == 0)


def mutated_model(seed: int) -> tuple[onnx.ModelProto, str]:
    """Return the model of a case and what was done to it."""
    rng = np.random.default_rng(seed)
    return _mutated(*_base(rng), MUTATIONS, rng)


def _mutated(
    base: onnx.ModelProto, name: str, mutations: Sequence[Mutation], rng: np.random.Generator
) -> tuple[onnx.ModelProto, str]:
    model = onnx.ModelProto()
    model.CopyFrom(base)
    for _ in range(int(rng.integers(1, 4))):
        mutation = mutations[int(rng.integers(len(mutations)))]
        name += f", {mutation.__name__}"
        try:
            mutation(model, rng)
        except (IndexError, ValueError):
            name += " (nothing to change)"
    return model, name


def _base(rng: np.random.Generator) -> tuple[onnx.ModelProto, str]:
    kind = rng.random()
    if kind < 0.2:
        name = TRAINED[int(rng.integers(len(TRAINED)))]
        return _trained(name), name
    if kind < 0.6:
        seed = int(rng.integers(10_000))
        return branching(seed), f"graph {seed}"
    while True:
        name, axis = case_names()[int(rng.integers(len(case_names())))], int(rng.choice([1, -1]))
        built = sandwich(name, axis)
        if not isinstance(built, str):
            return built[0], f"{name} on axis {axis}"


@cache
def _trained(name: str) -> onnx.ModelProto:
    return onnx.load(MODELS / f"{name}.onnx")
