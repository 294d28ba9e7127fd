"""Pictures made by programs: arrays in [0, 1], channels first. The kinds take turns:

    photographs   crops at random places, scales and flips of photographs (photographs.py), every other one recoloured
    collages      pieces of photographs that cover parts of another one
    dead leaves   discs and rectangles that cover each other, radii with density r^-3, colours and textures of their own
                  (the model of Lee, Mumford, Huang, 2001)
    noise         amplitude falling with frequency as f^-1.5; only among pictures of one channel
    drawings      bright strokes on black, as in handwriting and scans: every other picture if there is one channel only

Together they excite a network's filters much as natural pictures do: edges, textures and colours at all scales. What
the last layers need are things that the network tells apart: with only two photographs, and noise in place of collages,
MobileNetV1 (0.5, 160) at 80 % of its multiply-accumulates keeps 52.8 % of top-1, and 60.0 % with these. A network with
BatchNormalization reads collages only, because its layers run adjusted to the statistics of real pictures: one map
cannot adjust four kinds of pictures at once. ResNet20 at 0.3 of its parameters keeps 64.7 instead of 60.9 %. Small grey
pictures are more often writing than photographs, which is why half of them are drawings. A drawing is one to three
cubic Bezier curves of one width within the middle of the picture, with edges one pixel soft.

Picture i depends on the seed and on i only.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.inputs.photographs import Photograph, photograph_crop, photographs, recoloured

__all__ = ["FLIPS", "FRESH", "coloured_noise", "dead_leaves", "drawing", "photograph_collage", "synthetic_images"]

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

# Pictures up to this side are drawn at twice their size, so that edges are soft; larger ones have fine edges anyway.
FINE_SIDE = 128

# Other photographs in a collage, and the fewest and the most pieces of each: about half of the picture is covered.
# Pieces are at least 5 % of a picture's shorter side in radius. Other numbers were not tried.
SHEETS, PIECES, SMALLEST_PIECE = 4, (1, 10), 0.05

# Control points of strokes keep away from the edges by this share of the sides: 5 of 28 pixels, so that the widest
# strokes leave the outer 3 black, as in MNIST.
MARGIN = 0.18

# Half of a stroke's width as a share of the shorter side: 1.6 to 3.6 pixels in 28, as pens draw in MNIST.
WIDTHS = (0.028, 0.065)

# Weights of four control points at 40 points along a cubic Bezier curve: in 28 pixels these points lie closer together
# than a stroke is wide, so that it has no gaps.
_ALONG = np.linspace(0, 1, 40)[:, None]
_BEZIER = np.hstack([(1 - _ALONG) ** 3, 3 * (1 - _ALONG) ** 2 * _ALONG, 3 * (1 - _ALONG) * _ALONG**2, _ALONG**3])


def synthetic_images(
    count: int, shape: tuple[int, int, int], seed: int, *, drawn: bool = False, collages: bool = False
) -> Floats:
    """Return (count, channels, height, width) pictures in [0, 1].

    One channel is grey, three are colours, four are both. With `drawn` all are drawings, with `collages` all pictures
    in colour are collages. Of many pictures up to three
    quarters are others turned over, which a network sees as new ones and which take no time to make.
    """
    channels, height, width = shape
    coarse = max(1, math.ceil(math.sqrt(height * width / MOST_PIXELS)))
    if coarse > 1:
        small = (channels, -(-height // coarse), -(-width // coarse))
        pixels = synthetic_images(count, small, seed, drawn=drawn, collages=collages)
        return pixels.repeat(coarse, axis=2)[:, :, :height].repeat(coarse, axis=3)[..., :width]
    sources = () if drawn else photographs()

    def draw(rng: np.random.Generator) -> Floats:
        return np.broadcast_to(drawing(rng, height, width), (3, height, width))

    def leaves(rng: np.random.Generator) -> Floats:
        return dead_leaves(rng, height, width)

    def photograph(rng: np.random.Generator) -> Floats:
        return photograph_crop(rng, height, width, sources)

    def collage(rng: np.random.Generator) -> Floats:
        return photograph_collage(rng, height, width, sources)

    kinds: tuple[_Kind, ...] = (photograph, collage, lambda rng: recoloured(rng, photograph(rng)), leaves)
    if drawn:
        kinds = (draw,)
    elif channels == 1:
        kinds = (photograph, draw, leaves, draw, lambda rng: noise_picture(rng, height, width), draw)
    elif collages:
        kinds = (collage,)
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
    fine = 2 if min(height, width) <= FINE_SIDE else 1
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
    return _shrunk(canvas, fine)


def _shrunk(canvas: Floats, fine: int) -> Floats:
    """Return the picture with each square of fine x fine pixels as one."""
    _, tall, wide = canvas.shape
    squares = canvas.reshape(3, tall // fine, fine, wide // fine, fine)
    shrunk: Floats = squares.mean(axis=(2, 4), dtype=np.float32)
    return shrunk


def photograph_collage(rng: np.random.Generator, height: int, width: int, sources: Sequence[Photograph]) -> Floats:
    """Return leaves that show pieces of photographs, thrown on a photograph, all in colours of their own.

    Edges between things that do not belong together, at all sizes, show a network more of what it tells apart than the
    same number of whole photographs does.
    """
    fine = 2 if min(height, width) <= FINE_SIDE else 1
    tall, wide = height * fine, width * fine
    canvas = recoloured(rng, photograph_crop(rng, tall, wide, sources))
    smallest, largest = max(SMALLEST_LEAF, SMALLEST_PIECE * min(tall, wide)), LARGEST_SHARE * min(tall, wide)
    for _ in range(SHEETS):
        sheet = recoloured(rng, photograph_crop(rng, tall, wide, sources))
        # densities fall as r^-2, not r^-3 as those of leaves: small pieces of photographs show nothing
        for uniform in rng.random(int(rng.integers(*PIECES, endpoint=True))):
            radius = 1 / (1 / smallest - uniform * (1 / smallest - 1 / largest))
            rows, columns, inside, _ = _place(rng, tall, wide, float(radius))
            high, broad = inside.shape
            top, left = (int(rng.integers(room, endpoint=True)) for room in (tall - high, wide - broad))
            np.copyto(canvas[:, rows, columns], sheet[:, top : top + high, left : left + broad], where=inside)
    return _shrunk(canvas, fine)


def _palette(rng: np.random.Generator, count: int) -> Floats:
    """Return colours that differ more in brightness than in hue, around a middle that is drawn for the picture."""
    middle = rng.normal(0.45, 0.12)
    brightness = rng.normal(middle, 0.22, (count, 1))
    return np.clip(brightness + rng.normal(0, 0.1, (count, 3)), 0, 1).astype(np.float32)


def _throw_leaf(rng: np.random.Generator, canvas: Floats, texture: Floats, radius: float, colour: Floats) -> None:
    """Draw one textured leaf at a random place onto the canvas."""
    tall, wide = texture.shape
    rows, columns, inside, along = _place(rng, tall, wide, radius)
    relief = rng.exponential(0.06) * texture[rows, columns]
    if rng.random() < 0.3:
        relief = relief + rng.uniform(0.03, 0.15) * np.sin(along * np.float32(2 * math.pi / rng.uniform(3, 12)))
    surface = np.clip(colour[:, None, None] + relief, 0, 1)
    np.copyto(canvas[:, rows, columns], surface, where=inside)


def _place(
    rng: np.random.Generator, tall: int, wide: int, radius: float
) -> tuple[slice, slice, NDArray[np.bool_], NDArray[np.floating[Any]]]:
    """Return where a leaf of this radius lies: rows, columns, and what `_outline` says of the pixels there."""
    y, x = rng.uniform(0, tall), rng.uniform(0, wide)
    rows = slice(max(0, math.floor(y - radius)), min(tall, math.ceil(y + radius) + 1))
    columns = slice(max(0, math.floor(x - radius)), min(wide, math.ceil(x + radius) + 1))
    dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(y)
    dx = np.arange(columns.start, columns.stop, dtype=np.float32)[None] - np.float32(x)
    return rows, columns, *_outline(rng, dy, dx, radius)


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
