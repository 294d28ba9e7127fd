"""The windows of a convolution or pool: kernel, strides, dilations, and pads as plain numbers."""

from dataclasses import dataclass
from itertools import product

import onnx_ir as ir

from onnx_tropnnc.gradients.step import NoGradient
from onnx_tropnnc.gradients.tape import Attributes, Tape

__all__ = ["Windows", "windows_of"]

# An end of a Slice that stands for the end of the axis, as onnx defines it.
FAR = 2**63 - 1


@dataclass(frozen=True)
class Windows:
    """Where the windows lie over space.

    Attributes:
        kernel, strides, dilations: one number per spatial axis.
        begin: padding in front of each axis.
        read: the size of the space that windows lie on.
        places: how many windows lie along each axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    read: tuple[int, ...]
    places: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Return the number of spatial axes."""
        return len(self.kernel)

    @property
    def spare(self) -> tuple[int, ...]:
        """Return per axis how far the last window ends behind what is read: negative where it ends inside."""
        axes = zip(self.kernel, self.strides, self.dilations, self.begin, self.read, self.places, strict=True)
        return tuple((n - 1) * s + (k - 1) * d + 1 - begin - read for k, s, d, begin, read, n in axes)

    @property
    def tiles(self) -> bool:
        """Return whether windows lie side by side: no overlap, no gap, no padding."""
        return (
            self.kernel == self.strides and not any(self.begin) and all(extra <= 0 for extra in self.spare)
        ) and set(self.dilations) <= {1}

    def attributes(self, group: int = 1) -> Attributes:
        """Return the attributes of a convolution over these windows that reads all that they read."""
        end = [max(0, extra) for extra in self.spare]
        return {
            "kernel_shape": self.kernel,
            "strides": self.strides,
            "dilations": self.dilations,
            "group": group,
            "pads": [*self.begin, *end],
        }

    def transposed(self, group: int = 1) -> Attributes:
        """Return the attributes of a ConvTranspose that writes where these windows read."""
        left = [max(0, -extra) for extra in self.spare]
        return {**self.attributes(group), "output_padding": left}

    def padded(self, tape: Tape, value: ir.Value, axes: tuple[int, int], fill: float = 0.0) -> ir.Value:
        """Return what windows read, with a border; `axes` counts the axes before and behind the spatial ones."""
        before, behind = ([0] * count for count in axes)
        end = [max(0, extra) for extra in self.spare]
        return tape.pad(value, [*before, *self.begin, *behind], [*before, *end, *behind], fill)

    def shifted(self, tape: Tape, padded: ir.Value, first: int) -> list[ir.Value]:
        """Return, per kernel position, what all windows read there; `first` is the first spatial axis."""
        last, step = first + self.rank - 1, self.strides[-1]
        # onnxruntime steps along the last axis element by element: this takes a third longer than to step along it
        # once for all positions that are a multiple of the stride apart, and to copy whole runs then
        phased = 1 < step < self.kernel[-1]
        phases = {start % step: padded for start in self._starts(-1)}
        if phased:
            phases = {phase: tape.slice(padded, [phase], [FAR], [last], [step]) for phase in phases}
        parts = []
        for starts in product(*(self._starts(axis) for axis in range(self.rank))):
            read = phases[starts[-1] % step]
            strides = self.strides
            if phased:
                starts, strides = (*starts[:-1], starts[-1] // step), (*strides[:-1], 1)
            ends = [start + (n - 1) * stride + 1 for start, n, stride in zip(starts, self.places, strides, strict=True)]
            parts.append(tape.slice(read, starts, ends, list(range(first, last + 1)), strides))
        return parts

    def _starts(self, axis: int) -> list[int]:
        """Return where the first window reads along an axis, for each position of the kernel there."""
        return [i * self.dilations[axis] for i in range(self.kernel[axis])]


def windows_of(
    node: ir.Node, kernel: tuple[int, ...], read: tuple[int, ...], places: tuple[int, ...]
) -> Windows | NoGradient:
    """Return a Conv's or pool's windows, or a ConvTranspose's (there `read` is what it writes, `places` what it reads).

    auto_pad is resolved: what it pads follows from the sizes.
    """
    ones = (1,) * len(kernel)
    strides, dilations = (tuple(node.attributes.get_ints(name, ones) or ones) for name in ("strides", "dilations"))
    pads = node.attributes.get_ints("pads")
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    begin = (0,) * len(kernel) if pads is None else tuple(pads[: len(kernel)])
    # both pad by what the windows lack; of an odd number SAME_UPPER puts the last one at the end, the others in front
    if automatic.startswith("SAME") or "output_shape" in node.attributes:
        unpadded = Windows(kernel, strides, dilations, (0,) * len(kernel), read, places)
        totals = [max(0, extra) for extra in unpadded.spare]
        upper = automatic == "SAME_UPPER"
        begin = tuple(total // 2 if upper else total - total // 2 for total in totals)
    if min((*begin, *(pads or ())), default=0) < 0:
        return NoGradient("its pads are negative")
    return Windows(kernel, strides, dilations, begin, read, places)
