"""Merge groups of small models and solve their consumers."""

import numpy as np
import onnx
from graphs import assert_sound, graph, random_weights, run

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.changes import Reconstructed
from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.passes import FoldBatchNorm
from onnx_tropnnc.passes.reconstruct_consumers import ReconstructConsumers
from onnx_tropnnc.rewriting.workspace import Workspace


def samples(count: int = 200, *, made_up: bool = False, **shapes: tuple[int, ...]) -> Samples:
    rng = np.random.default_rng(7)
    given = shapes or {"x": (4,)}
    inputs = tuple(ResolvedInput(name, np.dtype(np.float32), shape) for name, shape in given.items())
    arrays = {name: rng.standard_normal((count, *shape)).astype(np.float32) for name, shape in given.items()}
    return Samples(inputs, arrays, None, "drawn", made_up)


def kept(count: int, *channels: int) -> MergeMap:
    """Keeps some channels as they are and drops the others."""
    labels, weights = np.full(count, -1), np.zeros(count)
    labels[list(channels)], weights[list(channels)] = np.arange(len(channels)), 1.0
    return MergeMap(labels, weights, weights)


def apply(model: Model, merges: dict[str, MergeMap]) -> Model:
    merged = model.clone()
    workspace = Workspace(merged)
    for group in find_channel_groups(merged, shapes_of(merged)):
        if group.name in merges:
            workspace.apply(group, merges[group.name])
    return merged


def reconstructed(
    model: onnx.ModelProto, merges: dict[str, MergeMap], data: Samples, **options: object
) -> tuple[onnx.ModelProto, onnx.ModelProto, tuple[object, ...]]:
    """(merged, merged and solved, changes)."""
    reference = load(model)
    FoldBatchNorm()(reference)
    before = to_proto(reference).SerializeToString(deterministic=True)
    merged = apply(reference, merges)
    plain = to_proto(merged)
    changes = ReconstructConsumers(reference, merges, data, **options)(merged)
    assert to_proto(reference).SerializeToString(deterministic=True) == before
    result = to_proto(merged)
    assert_sound(result)
    return plain, result, changes


def error(model: onnx.ModelProto, other: onnx.ModelProto, data: Samples) -> float:
    """Relative L2 error of the first output on fresh samples."""
    rng = np.random.default_rng(99)
    feeds = {i.name: rng.standard_normal((50, *i.shape)).astype(np.float32) for i in data.inputs}
    (y, *_), (z, *_) = run(model, feeds), run(other, feeds)
    return float(np.linalg.norm(z - y) / np.linalg.norm(y - y.mean(axis=0)))


def linear_redundancy(weights: dict[str, np.ndarray], name: str) -> None:
    """Channels 2 and 3 become sums of 0 and 1: without an activation behind them they can be solved for."""
    first = weights[name]
    first[:, 2], first[:, 3] = first[:, 0] + first[:, 1], first[:, 0] - 2 * first[:, 1]


RELU_NET = graph(
    "a = Gemm(x, w1, b1)  b = Relu(a)  y = Gemm(b, w2, b2)", random_weights(w1=(4, 8), b1=(8,), w2=(8, 3), b2=(3,))
)
HALF = {"Gemm_0": kept(8, 0, 1, 2, 3, 4)}


def refitted(changes: tuple[object, ...]) -> list[str | None]:
    return [change.refitted for change in changes if isinstance(change, Reconstructed)]
