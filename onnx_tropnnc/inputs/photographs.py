"""Cut pictures out of photographs: two that scikit-learn ships, and 29 small ones in pictures/.

A network whose inputs are photographs is judged by made-up pictures no better than these excite its last layers. The
more different the photographs are, the more of its classes they reach: 260 pictures cut from two photographs bring
MobileNetV1 (0.5, 160) with 80 % of its multiply-accumulates to 50.4 % of top-1, cut from eight to 60.8 %; 84 pictures
of ImageNet itself bring 64.0 %.

All photographs in pictures/ are in the public domain; SOURCES.txt there says who took them, and where they come from.
"""

import math
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnx_tropnnc.errors import SampleError

__all__ = ["Photograph", "photograph_crop", "photographs", "recoloured"]

Floats = NDArray[np.float32]
Photograph = NDArray[np.uint8]


@cache
def photographs() -> tuple[Photograph, ...]:
    """Return all photographs as (height, width, 3) bytes; scikit-learn is not imported, which would take a second.

    Raises:
        SampleError: scikit-learn is not installed.
    """
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise SampleError("scikit-learn is not installed, whose photographs pictures are made from; pip install it")
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "images"
    # sorted, because the order in which a folder lists its files differs between systems
    own = sorted((Path(__file__).parent / "pictures").glob("*.jpg"))
    return tuple(
        np.asarray(Image.open(path).convert("RGB"), np.uint8)
        for path in (folder / "china.jpg", folder / "flower.jpg", *own)
    )


def photograph_crop(rng: np.random.Generator, height: int, width: int, sources: Sequence[Photograph]) -> Floats:
    """Return a crop of one of the photographs, from full resolution up to all of it, resampled to height x width."""
    source = sources[int(rng.integers(len(sources)))]
    largest = min(source.shape[0] / height, source.shape[1] / width)
    zoom = math.exp(rng.uniform(math.log(min(1, largest)), math.log(largest)))
    # rounding may make the largest crop longer than the photograph by its last digit
    tall, wide = (min(a * zoom, b) for a, b in zip((height, width), source.shape[:2], strict=True))
    top, left = rng.uniform(0, source.shape[0] - tall), rng.uniform(0, source.shape[1] - wide)
    box = (left, top, left + wide, top + tall)
    crop = Image.fromarray(source).resize((width, height), Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(crop, np.float32).transpose(2, 0, 1) / np.float32(255)
    return pixels[:, :, ::-1] if rng.random() < 0.5 else pixels


def recoloured(rng: np.random.Generator, picture: Floats) -> Floats:
    """Return a colour picture in other colours: channels swapped, brightness, contrast and saturation changed."""
    if rng.random() < 0.5:
        picture = picture[rng.permutation(3)]
    # a gamma between 0.5 and 2 for nearly all pictures; 1e-4 keeps black from becoming 0 to a negative power
    picture = np.maximum(picture, 1e-4) ** np.float32(math.exp(rng.normal(0, 0.35)))
    grey = picture.mean(axis=0, keepdims=True)
    picture = grey + (picture - grey) * np.float32(rng.uniform(0.3, 1.6))
    middle = picture.mean()
    # contrast is raised more than lowered, because clipping takes some of it back
    picture = (picture - middle) * np.float32(rng.uniform(0.7, 1.5)) + middle
    tint = (rng.normal(0, 0.08) + rng.normal(0, 0.05, (3, 1, 1))).astype(np.float32)
    changed: Floats = np.clip(picture + tint, 0, 1)
    return changed
