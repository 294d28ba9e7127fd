"""Compress a model in many ways and measure each: what all tables of the paper have in common.

    subject = Subject.load("model.onnx")                      BatchNormalization folded, once
    model = subject.merged(Cup(), extent=Threshold(0.5))      the subject stays as it is
    size(model), top_1(model, data)

Nothing is verified or reconstructed: merge maps as the paper has them. Accuracies are kept under build/, named by what
the compressed model's bytes and the images hash to, so a second run computes the models again, but runs none of them.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.graph.knowledge import set_row_scale
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import Size, size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.merging.clustering import Extent
from onnx_tropnnc.merging.merge_map import keep_channels
from onnx_tropnnc.merging.representatives import Method, TropNNC
from onnx_tropnnc.options import Options
from onnx_tropnnc.passes import FoldBatchNorm, GroupFilter, MergeChannels, PlainConstants, RefreshShapes

__all__ = ["CACHE", "LabelledImages", "Subject", "missing", "nearest_threshold", "size", "top_1"]

CACHE = Path(__file__).parent.parent / "build" / "paper"
# One thread adds numbers in one order, so that figures are the same on every machine.
THREADS = 1
LINEAR = ("Gemm", "MatMul")
CONVOLUTIONAL = ("Conv", "ConvTranspose")


def missing(message: str) -> NoReturn:
    """End the benchmark with one line, which says what is missing and what to do, and exit code 2."""
    print(message, file=sys.stderr)
    raise SystemExit(2)


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images as a model reads them, and their labels."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    @staticmethod
    def load(
        path: Path,
        *,
        limit: int | None = None,
        mean: Sequence[float] | None = None,
        deviation: Sequence[float] | None = None,
    ) -> "LabelledImages":
        """Read X.npz with `labels` and `image`, as the model reads it, or uint8 `images`, `mean` and `std`.

        The last two can be replaced. A file that is not there or holds something else ends the benchmark in one line.
        """
        if not path.is_file():
            missing(f"{path} is missing; see docs/reproduce.md for what it holds")
        with np.load(path) as stored:
            if "image" in stored and "labels" in stored:
                return LabelledImages(stored["image"][:limit], stored["labels"][:limit])
            if absent := {"images", "labels", "mean", "std"} - set(stored):
                missing(f"{path} holds no {', '.join(sorted(absent))}; see docs/reproduce.md for what is needed")
            images, labels = stored["images"][:limit], stored["labels"][:limit]
            centre = np.asarray(stored["mean"] if mean is None else mean, np.float32).reshape(1, -1, 1, 1)
            scale = np.asarray(stored["std"] if deviation is None else deviation, np.float32).reshape(1, -1, 1, 1)
        return LabelledImages((images.astype(np.float32) / 255 - centre) / scale, labels)

    def only(self, *classes: int) -> "LabelledImages":
        """Return the images of some classes, numbered in the given order."""
        chosen = np.isin(self.labels, classes)
        return LabelledImages(self.images[chosen], np.searchsorted(classes, self.labels[chosen]))

    def samples(self, model: Model) -> Samples:
        """Return the images as samples of a model with one input."""
        made = samples_for(model, count=1)
        ((name, _),) = made.arrays.items()
        return Samples(made.inputs, {name: self.images}, None, f"{len(self.labels)} images")

    @cached_property
    def digest(self) -> str:
        """Return a hash of the images and labels."""
        found = hashlib.sha256(self.images.tobytes())
        found.update(self.labels.astype(np.int64).tobytes())
        return found.hexdigest()


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with BatchNormalization folded, to be compressed again and again."""

    folded: Model

    @staticmethod
    def load(path: Path, *, fused: bool = False) -> "Subject":
        """Read a model; `fused` discards the kernels before folding, so that clustering cannot use them."""
        model = load(path)
        PlainConstants()(model)
        FoldBatchNorm()(model)
        if fused:
            for value in model.graph.initializers.values():
                set_row_scale(value, None)
        return Subject(model)

    def merged(
        self,
        method: Method | None = None,
        *,
        extent: Extent | None = None,
        ratio: float = 0.0,
        include: tuple[str, ...] = (),
        seed: int = 0,
    ) -> Model:
        """Return a compressed copy; groups with a residual tie stay as they are, as in the paper."""
        return self._after(
            MergeChannels(
                ratio=ratio, extent=extent, method=method or TropNNC(), group_filter=GroupFilter(include), seed=seed
            )
        )

    def decider(self, images: LabelledImages) -> Decider:
        """Return the decider for methods that use activations; it runs the images only once."""
        return Decider(self.folded, images.samples(self.folded), size(self.folded))

    def decided(self, decider: Decider, options: Options, *, scaled: bool = True) -> Model:
        """Return a copy compressed as the decider decides; not `scaled`: columns that are kept stay as they are."""
        maps = decider.decide(options).maps
        if not scaled:
            maps = {name: keep_channels(np.flatnonzero(m.labels >= 0), len(m.labels)) for name, m in maps.items()}
        return self._after(MergeChannels(plan=maps, group_filter=options.group_filter))

    def _after(self, merge: MergeChannels) -> Model:
        model = self.folded.clone()
        merge(model)
        RefreshShapes()(model)
        return model

    def linear_layers(self) -> tuple[str, ...]:
        """Return the names of the linear layers."""
        return self._layers(LINEAR)

    def convolutions(self) -> tuple[str, ...]:
        """Return the names of the convolutions."""
        return self._layers(CONVOLUTIONAL)

    def _layers(self, operators: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(node.name for node in self.folded.graph if node.op_type in operators and node.name)


def size(model: Model | onnx.ModelProto) -> Size:
    """Return the model's parameters and multiply-accumulates."""
    model = load(model) if isinstance(model, onnx.ModelProto) else model
    return size_of(model, shapes_of(model))


def nearest_threshold(
    parameters_at: Callable[[float], int],
    target: int,
    *,
    high: float = 1.0,
    steps: int = 16,
    tolerance: float = 0.002,
) -> float:
    """Return a threshold that brings a parameter count within `tolerance` of `target`, or as near as bisection comes.

    Counts fall as the threshold grows.
    """
    seen: dict[float, int] = {}

    def too_many(threshold: float) -> bool:
        seen[threshold] = parameters_at(threshold)
        return seen[threshold] > target

    low = 0.0
    too_many(low)
    while too_many(high) and high < 1e6:
        low, high = high, 2 * high
    for _ in range(steps):
        if min(abs(count - target) for count in seen.values()) <= tolerance * target:
            break
        middle = (low + high) / 2
        low, high = (middle, high) if too_many(middle) else (low, middle)
    return min(seen, key=lambda threshold: (abs(seen[threshold] - target), threshold))


def top_1(model: Model | onnx.ModelProto, data: LabelledImages) -> float:
    """Return the percentage of images with the right label; the sign of a single output says which."""
    stored = (model if isinstance(model, onnx.ModelProto) else to_proto(model)).SerializeToString(deterministic=True)
    key = hashlib.sha256(stored + data.digest.encode()).hexdigest()
    path = CACHE / "accuracy" / key
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(repr(100 * float(np.mean(_guesses(stored, data.images) == data.labels))))
    return float(path.read_text())


def _guesses(stored: bytes, images: NDArray[np.float32], batch: int = 100) -> NDArray[np.int64]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(stored, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    if isinstance(entry.shape[0], int):
        batch = entry.shape[0]
    shape = [d if isinstance(d, int) else s for d, s in zip(entry.shape[1:], images.shape[1:], strict=False)]
    images = images.reshape(len(images), *shape)
    starts = range(0, len(images), batch)
    scores = np.concatenate([session.run(None, {entry.name: images[at : at + batch]})[0] for at in starts])
    flat = scores.reshape(len(images), -1)
    guesses: NDArray[np.int64] = (flat[:, 0] > 0).astype(np.int64) if flat.shape[1] == 1 else flat.argmax(axis=1)
    return guesses
