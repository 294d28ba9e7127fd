"""Tell which of the kinds in synthetic.py an input is: by its type, its shape, its name, and what the graph shows."""

import math
from collections.abc import Sequence

from onnx_tropnnc.graph.input_specs import IMAGE_CHANNELS, ResolvedInput
from onnx_tropnnc.inputs.input_hints import InputHints
from onnx_tropnnc.inputs.sounds import CEPSTRA

__all__ = ["NO_HINTS", "bands_last", "flat_picture", "kind_of", "picture_layout"]

# Smaller maps of 1, 3 or 4 channels are more often features than pictures.
SMALLEST_SIDE = 8

# A quarter of a second at 16 kHz; vectors of features are hardly ever so long.
LONG_WAVEFORM = 4000

# The only flat colour pictures that public models read: those of CIFAR-10.
FLAT_COLOUR = {3 * 32 * 32: (3, 32, 32)}

NO_HINTS = InputHints()


def kind_of(entry: ResolvedInput, hints: InputHints = NO_HINTS) -> str:
    """Return which of the kinds in this module's docstring an input is."""
    if entry.dtype.kind == "b":
        return "ones" if "mask" in entry.name.lower() else "flags"
    if "mask" in entry.name.lower():
        return "ones"
    if entry.dtype.kind in "iu":
        return _integer_kind(entry, hints)
    return "constant" if entry.shape == () and not entry.stacked else _float_kind(entry)


def _integer_kind(entry: ResolvedInput, hints: InputHints) -> str:
    if hints.indices is not None:
        return "tokens"
    if picture_layout(entry.shape) is not None:
        return "picture"
    single = math.prod(entry.shape) == 1 and not (entry.stacked and entry.shape)
    return "constant" if single or hints.constant is not None else "tokens"


def _float_kind(entry: ResolvedInput) -> str:
    if picture_layout(entry.shape) is not None:
        return "cepstra" if bands_last(entry.shape, CEPSTRA) is not None and 1 in entry.shape else "picture"
    if not entry.stacked:
        return "vector"
    long_axes = [d for d in entry.shape if d != 1]
    if len(long_axes) > 1:
        return "series" if len(long_axes) == 2 else "maps"
    length = math.prod(entry.shape)
    if not entry.elastic and flat_picture(length) is not None:
        return "flat"
    return "waveform" if entry.elastic or length >= LONG_WAVEFORM else "vector"


def picture_layout(shape: Sequence[int]) -> tuple[tuple[int, int, int], bool] | None:
    """Return ((channels, height, width), channels last?) of the last three axes; None if they are no picture."""
    if len(shape) < 3:
        return None
    first, middle, last = shape[-3:]
    if first in IMAGE_CHANNELS and min(middle, last) >= SMALLEST_SIDE:
        return (first, middle, last), False
    if last in IMAGE_CHANNELS and min(first, middle) >= SMALLEST_SIDE:
        return (last, first, middle), True
    return None


def bands_last(shape: Sequence[int], bands: Sequence[int]) -> bool | None:
    """Return whether bands are on the last of two axes longer than 1, not on the first; None where they are on none."""
    long_axes = [size for size in shape if size != 1]
    if len(long_axes) != 2 or long_axes[0] == long_axes[1] or not set(long_axes) & set(bands):
        return None
    # where both may be bands, there are more moments than bands
    return long_axes[1] in bands and not (long_axes[0] in bands and long_axes[0] < long_axes[1])


def flat_picture(length: int) -> tuple[int, int, int] | None:
    """Return the (channels, height, width) of the picture that a vector of this length may be, or None."""
    side = math.isqrt(length)
    if side >= SMALLEST_SIDE and side**2 == length:
        return (1, side, side)
    return FLAT_COLOUR.get(length)
