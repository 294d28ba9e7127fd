"""Every public pass is a frozen value: used on several models, it does what a fresh one does."""

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights

from onnx_tropnnc import passes
from onnx_tropnnc.changes import Merged, Verified
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_manager import Pass, PassManager
from onnx_tropnnc.tuning.tune import Tuning

LAYERS = {"w": (8, 2, 3, 3), "g": (8,), "b": (8,), "m": (8,), "v": (8,)}
BLOCK = {"u": (24, 8, 1, 1), "t": (8, 24, 1, 1), "z": (2, 8, 1, 1)}


def network(seed: int, kept: int) -> onnx.ModelProto:
    """Return a residual block; the wide layer's channels after the first `kept` are nearly equal."""
    weights = random_weights(seed, **LAYERS, **BLOCK)
    near = 1e-3 * random_weights(seed + 1, n=(24, 8, 1, 1))["n"]
    weights["u"] = weights["u"][np.minimum(np.arange(24), kept)] + near
    weights["w"][0] = 0.0  # a channel without weights is constant
    body = (
        "c = Conv(x, w) d = BatchNormalization(c, g, b, m, v) e = Relu(d) h = Conv(e, u) r = Relu(h) i = Identity(t) "
        "o = Conv(r, i) s = Add(e, o) y = Conv(s, z)"
    )
    return graph(body, weights, inputs="float[N, 2, 6, 6] x", outputs="float[N, 2, 4, 4] y")


MODELS = {"first": network(0, 5), "second": network(7, 14)}


def rename_nodes(edited: object) -> None:
    """Edit a graphsurgeon graph."""
    for node in edited.nodes:  # type: ignore[attr-defined]
        node.name = f"{node.name}_edited"


def compress(**options: object) -> passes.CompressChannels:
    return passes.CompressChannels(Options(**options), samples_for(load(MODELS["first"]), count=40))  # type: ignore[arg-type]


def reconstruct() -> passes.ReconstructConsumers:
    """Solve for the first model's activations, whatever model is given."""
    reference = load(MODELS["first"])
    merged = [c for c in passes.MergeChannels(ratio=0.5)(reference.clone()) if isinstance(c, Merged)]
    maps = {change.group: change.merge_map for change in merged}
    return passes.ReconstructConsumers(reference, maps, samples_for(reference, count=40))


def tune() -> passes.TuneWeights:
    """Learn from the first model, whatever model is given."""
    reference = loaded("first", "TuneWeights")
    return passes.TuneWeights(reference, samples_for(reference, count=100), Tuning(budget=10**7))


FRESH: dict[str, Callable[[], Pass]] = {
    "CheckExactness": passes.CheckExactness,
    "CompressChannels": lambda: compress(ratio=0.5),
    "DequantizeWeights": passes.DequantizeWeights,
    "DropCasts": passes.DropCasts,
    "EditWithGraphSurgeon": lambda: passes.EditWithGraphSurgeon(rename_nodes),
    "FactorizeLayers": lambda: passes.FactorizeLayers(samples_for(load(MODELS["first"]), count=4)),
    "FoldBatchNorm": passes.FoldBatchNorm,
    "FoldConstantChannels": lambda: passes.FoldConstantChannels(samples_for(load(MODELS["first"]), count=4)),
    "FoldPositions": passes.FoldPositions,
    "FoldStandIns": passes.FoldStandIns,
    "IfExact": lambda: passes.IfExact((passes.FoldPositions(),)),
    "InlineFunctions": passes.InlineFunctions,
    "JoinFactors": passes.JoinFactors,
    "MergeChannels": lambda: passes.MergeChannels(ratio=0.5),
    "NameBodiesApart": passes.NameBodiesApart,
    "NarrowQueries": lambda: passes.NarrowQueries(samples_for(load(MODELS["first"]), count=4)),
    "PlainConstants": passes.PlainConstants,
    "PlainLayouts": passes.PlainLayouts,
    "PlainShapes": passes.PlainShapes,
    "QuantizeWeights": passes.QuantizeWeights,
    "ReconstructConsumers": reconstruct,
    "RefreshShapes": passes.RefreshShapes,
    "RotateStreams": lambda: passes.RotateStreams(samples_for(load(MODELS["first"]), count=4)),
    "RotateValues": lambda: passes.RotateValues(samples_for(load(MODELS["first"]), count=4)),
    "SimplifyNormalizations": passes.SimplifyNormalizations,
    "TuneWeights": tune,
    "VerifyOutputs": lambda: passes.VerifyOutputs(timing_seconds=0.0),
}
"""How to make each pass."""

PASSES = [name for name in passes.__all__ if "__call__" in vars(getattr(passes, name))]


def result(step: Pass, *models: Model) -> list[tuple[bytes, list[object]]]:
    """Return the bytes of each model after the step, and what the step says it did."""
    found = []
    for model in models:
        changes = step(model)
        found.append((to_proto(model).SerializeToString(), [_comparable(change) for change in changes]))
    return found


def _comparable(change: object) -> object:
    if isinstance(change, Verified):
        return change.verification.outputs
    return (change.group, change.before, change.after) if isinstance(change, Merged) else change


def loaded(model: str, name: str) -> Model:
    """Return the model as the pass of this name expects it: simplified and folded, where that is not its own work."""
    found = load(MODELS[model])
    for step in (passes.PlainConstants(), passes.FoldBatchNorm()):
        if type(step).__name__ != name:
            step(found)
    return found


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_does_the_same_on_a_second_model(name: str) -> None:
    alone = {model: result(FRESH[name](), loaded(model, name))[0] for model in MODELS}
    for order in (tuple(MODELS), tuple(MODELS)[::-1]):
        models = [loaded(model, name) for model in order]
        assert result(FRESH[name](), *models) == [alone[model] for model in order]


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_twice_in_one_manager_is_two_fresh_ones(name: str) -> None:
    step = FRESH[name]()
    once, fresh = loaded("second", name), loaded("second", name)
    assert result(PassManager([step, step]), once) == result(PassManager([FRESH[name](), FRESH[name]()]), fresh)


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_is_frozen(name: str) -> None:
    step = FRESH[name]()
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.name = "another"  # type: ignore[misc]
