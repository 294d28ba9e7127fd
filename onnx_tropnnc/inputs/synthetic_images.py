"""Pictures made by programs: arrays in [0, 1], channels first. The kinds take turns:

    dead leaves   discs and rectangles that cover each other, radii with density r^-3, colours and textures of their own
    photographs   crops at random places, scales and flips of the two that scikit-learn ships (china, flower)
    noise         amplitude falling with frequency as f^-1.5, colours correlated
    drawings      bright strokes on black, as in handwriting and scans: every other picture if there is one channel only

Together they excite a network's filters much as natural pictures do: edges, textures and colours at all scales. Small
grey pictures are more often writing than photographs, which is why half of them are drawings. A drawing is one to three
cubic Bezier curves of one width within the middle of the picture, with edges one pixel soft.

Picture i depends on the seed and on i only.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnx_tropnnc.errors import SampleError

__all__ = ["FLIPS", "FRESH", "coloured_noise", "dead_leaves", "drawing", "photograph_crop", "synthetic_images"]

Floats = NDArray[np.float32]
_Kind = Callable[[np.random.Generator], Floats]

# Weights of red, green and blue in brightness, those of ITU-R BT.601 that picture libraries use.
GREY = np.array([0.299, 0.587, 0.114], np.float32)

# Amplitudes of natural pictures fall about as 1/f; the steeper 1.5 gives smooth fields, which leaves do not have.
NOISE_EXPONENT = 1.5

# Of many pictures only FRESH, or one in four where that is more, are made: 15,000 drawings take a quarter of the time
# so. The others are those turned over along these axes.
FRESH, FLIPS = 2560, ((), (3,), (2,), (2, 3))

# Larger pictures are made at a fraction of their size, and each pixel is repeated: a picture of so many pixels takes
# 0.25 GB while it is made.
MOST_PIXELS = 2**22

# Discs and rectangles of one picture: a square has at most 500 and a spectrogram of 80 x 3000 has 6,500, but a strip of
# 8 x 1,000,000 would have two million, which take minutes.
MOST_LEAVES = 20_000

# Noise is transformed in float64 for so many numbers at a time, or for one field: with their spectrum and copies these
# numbers take 130 MB.
NUMBERS_AT_ONCE = 2**22

# Radii of leaves: at least 3 pixels, for smaller ones are noise, and from 2 % to 50 % of a picture's shorter side, so
# that there are edges at all scales.
SMALLEST_LEAF, SMALLEST_SHARE, LARGEST_SHARE = 3, 0.02, 0.5

# Control points of strokes keep away from the edges by this share of the sides: 5 of 28 pixels, so that the widest
# strokes leave the outer 3 black, as in MNIST.
MARGIN = 0.18

# Half of a stroke's width as a share of the shorter side: 1.6 to 3.6 pixels in 28, as pens draw in MNIST.
WIDTHS = (0.028, 0.065)

# Weights of four control points at 40 points along a cubic Bezier curve: in 28 pixels these points lie closer together
# than a stroke is wide, so that it has no gaps.
_ALONG = np.linspace(0, 1, 40)[:, None]
_BEZIER = np.hstack([(1 - _ALONG) ** 3, 3 * (1 - _ALONG) ** 2 * _ALONG, 3 * (1 - _ALONG) * _ALONG**2, _ALONG**3])


def synthetic_images(count: int, shape: tuple[int, int, int], seed: int, *, drawn: bool = False) -> Floats:
    """Return (count, channels, height, width) pictures in [0, 1].

    One channel is grey, three are colours, four are both. With `drawn` all are drawings. Of many pictures up to three
    quarters are others turned over, which a network sees as new ones and which take no time to make.
    """
    channels, height, width = shape
    coarse = max(1, math.ceil(math.sqrt(height * width / MOST_PIXELS)))
    if coarse > 1:
        small = (channels, -(-height // coarse), -(-width // coarse))
        pixels = synthetic_images(count, small, seed, drawn=drawn)
        return pixels.repeat(coarse, axis=2)[:, :, :height].repeat(coarse, axis=3)[..., :width]
    photographs = () if drawn else _photographs()

    def draw(rng: np.random.Generator) -> Floats:
        return np.broadcast_to(drawing(rng, height, width), (3, height, width))

    kinds: tuple[_Kind, ...] = (
        lambda rng: dead_leaves(rng, height, width),
        lambda rng: photograph_crop(rng, height, width, photographs),
        lambda rng: noise_picture(rng, height, width),
    )
    if drawn:
        kinds = (draw,)
    elif channels == 1:
        kinds = (kinds[0], draw, kinds[1], draw, kinds[2], draw)
    pictures = np.empty((count, channels, height, width), np.float32)
    fresh = min(count, max(FRESH, -(-count // len(FLIPS))))
    for i in range(fresh):
        rng = np.random.default_rng((seed, i))
        pictures[i] = _with_channels(kinds[i % len(kinds)](rng), channels)
    for start, flip in zip(range(fresh, count, fresh), FLIPS[1:], strict=False):
        pictures[start : start + fresh] = np.flip(pictures[: min(fresh, count - start)], axis=flip)
    return pictures


def _with_channels(picture: Floats, channels: int) -> Floats:
    """Return a colour picture as grey, in colours, or in both."""
    if channels == 3:
        return picture
    grey = np.tensordot(GREY, picture, axes=1)[None]
    return grey if channels == 1 else np.concatenate([picture, grey])


@cache
def _photographs() -> tuple[NDArray[np.uint8], ...]:
    """Return the two photographs that scikit-learn ships, read without importing it, which takes a second."""
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise SampleError("scikit-learn is not installed, whose photographs pictures are made from; pip install it")
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "images"
    return tuple(np.asarray(Image.open(folder / name), np.uint8) for name in ("china.jpg", "flower.jpg"))


def photograph_crop(
    rng: np.random.Generator, height: int, width: int, photographs: Sequence[NDArray[np.uint8]]
) -> Floats:
    """Return a crop of one of the photographs, from full resolution up to all of it, resampled to height x width."""
    source = photographs[int(rng.integers(len(photographs)))]
    largest = min(source.shape[0] / height, source.shape[1] / width)
    zoom = math.exp(rng.uniform(math.log(min(1, largest)), math.log(largest)))
    tall, wide = height * zoom, width * zoom
    top, left = rng.uniform(0, source.shape[0] - tall), rng.uniform(0, source.shape[1] - wide)
    box = (left, top, left + wide, top + tall)
    crop = Image.fromarray(source).resize((width, height), Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(crop, np.float32).transpose(2, 0, 1) / np.float32(255)
    return pixels[:, :, ::-1] if rng.random() < 0.5 else pixels


def noise_picture(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Return noise with correlated colours around a random brightness."""
    shared = math.sqrt(rng.uniform(0.5, 0.95))
    fields = coloured_noise(rng, (4, height, width), NOISE_EXPONENT)
    mixed = shared * fields[:1] + math.sqrt(1 - shared**2) * fields[1:]
    brightness, contrast = rng.normal(0.5, 0.12), 0.2 * math.exp(rng.normal(0, 0.4))
    return np.clip(brightness + contrast * mixed, 0, 1).astype(np.float32)


def coloured_noise(rng: np.random.Generator, shape: Sequence[int], exponent: float, axes: int = 2) -> Floats:
    """Return Gaussian noise whose amplitude falls as frequency^-exponent over the last `axes` axes.

    Each field over these axes has mean 0 and standard deviation 1.
    """
    sizes = tuple(shape[len(shape) - axes :])
    over = tuple(range(-axes, 0))
    grids = np.meshgrid(*(np.fft.fftfreq(n) for n in sizes[:-1]), np.fft.rfftfreq(sizes[-1]), indexing="ij")
    frequency = np.sqrt(sum(grid**2 for grid in grids))
    frequency.flat[0] = np.inf  # takes out the mean, and avoids 0 to a negative power
    noise = np.empty((math.prod(shape[: len(shape) - axes]), *sizes), np.float32)
    step = max(1, NUMBERS_AT_ONCE // max(1, math.prod(sizes)))
    for start in range(0, len(noise), step):
        part = noise[start : start + step]
        spectrum = np.fft.rfftn(rng.standard_normal(part.shape), axes=over) * frequency**-exponent
        fields = np.fft.irfftn(spectrum, s=sizes, axes=over)
        spread = fields.std(axis=over, keepdims=True)
        part[:] = fields / np.where(spread > 0, spread, 1)
    return noise.reshape(shape)


def dead_leaves(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Return discs and rectangles thrown on each other until they cover the picture about four times."""
    fine = 2 if min(height, width) <= 128 else 1  # small pictures are drawn at twice the size: soft edges
    tall, wide = height * fine, width * fine
    side = min(tall, wide)
    smallest, largest = min(max(SMALLEST_LEAF * fine, SMALLEST_SHARE * side), side / 4), LARGEST_SHARE * side
    mean_square = 2 * math.log(largest / smallest) / (smallest**-2 - largest**-2)
    leaves = min(math.ceil(4 * tall * wide / (math.pi * mean_square)), MOST_LEAVES)
    uniform = rng.random(leaves)
    radii = (smallest**-2 - uniform * (smallest**-2 - largest**-2)) ** -0.5
    palette = _palette(rng, leaves + 1)
    texture = coloured_noise(rng, (tall, wide), 1.0)
    canvas = np.clip(palette[0][:, None, None] + 0.1 * texture, 0, 1).astype(np.float32)
    for radius, colour in zip(radii, palette[1:], strict=True):
        _throw_leaf(rng, canvas, texture, float(radius), colour)
    shrunk: Floats = canvas.reshape(3, height, fine, width, fine).mean(axis=(2, 4), dtype=np.float32)
    return shrunk


def _palette(rng: np.random.Generator, count: int) -> Floats:
    """Return colours that differ more in brightness than in hue, around a middle that is drawn for the picture."""
    middle = rng.normal(0.45, 0.12)
    brightness = rng.normal(middle, 0.22, (count, 1))
    return np.clip(brightness + rng.normal(0, 0.1, (count, 3)), 0, 1).astype(np.float32)


def _throw_leaf(rng: np.random.Generator, canvas: Floats, texture: Floats, radius: float, colour: Floats) -> None:
    """Draw one textured leaf at a random place onto the canvas."""
    tall, wide = texture.shape
    y, x = rng.uniform(0, tall), rng.uniform(0, wide)
    rows = slice(max(0, math.floor(y - radius)), min(tall, math.ceil(y + radius) + 1))
    columns = slice(max(0, math.floor(x - radius)), min(wide, math.ceil(x + radius) + 1))
    dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(y)
    dx = np.arange(columns.start, columns.stop, dtype=np.float32)[None] - np.float32(x)
    inside, along = _outline(rng, dy, dx, radius)
    relief = rng.exponential(0.06) * texture[rows, columns]
    if rng.random() < 0.3:
        relief = relief + rng.uniform(0.03, 0.15) * np.sin(along * np.float32(2 * math.pi / rng.uniform(3, 12)))
    surface = np.clip(colour[:, None, None] + relief, 0, 1)
    np.copyto(canvas[:, rows, columns], surface, where=inside)


def _outline(
    rng: np.random.Generator, dy: Floats, dx: Floats, radius: float
) -> tuple[NDArray[np.bool_], NDArray[np.floating[Any]]]:
    """Return which pixels the leaf covers, and the coordinate of all pixels along its axis."""
    angle = rng.uniform(0, math.pi)
    along = dx * np.float32(math.cos(angle)) + dy * np.float32(math.sin(angle))
    if rng.random() < 0.5:
        return dy**2 + dx**2 <= radius**2, along
    across = dy * np.float32(math.cos(angle)) - dx * np.float32(math.sin(angle))
    corner = rng.uniform(0.2, math.pi / 2 - 0.2)
    return (np.abs(along) <= radius * math.cos(corner)) & (np.abs(across) <= radius * math.sin(corner)), along


def drawing(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Return a (height, width) picture of strokes."""
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    squared = np.full((height, width), np.inf, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        points = _BEZIER @ (rng.uniform(MARGIN, 1 - MARGIN, (4, 2)) * (height, width))
        rows, columns = points.astype(np.float32).T
        for row, column in zip(rows, columns, strict=True):  # all points at once would take 40 times the memory
            np.minimum(squared, (y - row) ** 2 + (x - column) ** 2, out=squared)
    reach = np.float32(rng.uniform(*WIDTHS) * min(height, width))
    inked: Floats = np.clip(reach + np.float32(0.5) - np.sqrt(squared), 0.0, 1.0)
    return inked
