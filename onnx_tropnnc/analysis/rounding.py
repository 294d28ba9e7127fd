"""Channel counts that a runtime is fast at: a kept count is rounded UP to a multiple, never above what there is.

onnxruntime's fast convolutions work on blocks of 8 or 16 channels, and pad what is no multiple of a block: 45 channels
take as long as 48. A depthwise convolution of 45 channels leaves these kernels and takes four times as long.

    >>> Rounding.to(16).up(45, 64, 16), Rounding.to(16).up(45, 46, 16)
    (48, 46)
"""

from dataclasses import dataclass

import onnx_ir as ir

from onnx_tropnnc.analysis.channels import ChannelGroup, Place
from onnx_tropnnc.graph.constants import dims_of
from onnx_tropnnc.graph.layers import convolution_groups, is_convolution

__all__ = ["EXACTLY", "Rounding"]

# onnxruntime's blocked convolutions read inputs of a multiple of 4 channels only; others are computed by slow kernels.
_ALIGNMENT = 4

# Fewer channels than the smallest block are read without blocks, whatever their number is.
_UNBLOCKED = 8


@dataclass(frozen=True)
class Rounding:
    """A multiple for each kind of layer; a group takes the largest of the layers that it passes through.

    Attributes:
        convolution: the multiple for plain and grouped convolutions.
        depthwise: the multiple for depthwise convolutions.
        linear: the multiple for all other layers with weights.
        parts: how many steps a group can lose its channels in, at least, by smaller multiples down to 4: with 4 parts
            the multiple of 16 channels is 4, and that of 32 is 8. 0: no multiple is made smaller.
    """

    convolution: int = 1
    depthwise: int = 1
    linear: int = 1
    parts: int = 0

    def __str__(self) -> str:
        """Return the multiples in words."""
        names = {"Conv": self.convolution, "depthwise Conv": self.depthwise, "linear": self.linear}
        kinds = {multiple: ", ".join(n for n, m in names.items() if m == multiple) for multiple in names.values()}
        plain = "multiples of " + ", ".join(f"{multiple} ({kind})" for multiple, kind in kinds.items())
        wide = self.parts * max(self.convolution, self.depthwise)
        return f"{plain}, smaller ones where a layer has fewer than {wide} channels" if self.parts else plain

    @staticmethod
    def to(multiple: int) -> "Rounding":
        """Return the rounding with the same multiple everywhere."""
        return Rounding(multiple, multiple, multiple)

    def multiple(self, group: ChannelGroup) -> int:
        """Return what the group's count should be a multiple of."""
        # The patches of a vision transformer are one convolution of a stream that linear layers read everywhere else.
        if group.is_stream and any(not is_convolution(place.use.node) for place in group.of_kind("consumer")):
            return self.linear
        # a head is as many features as stay in it, whose number is a multiple already
        if group.is_heads:
            return 1
        return max((self._of(place, group.channels) for place in group.places), default=1)

    def _of(self, place: Place, channels: int) -> int:
        node, kind = place.use.node, place.use.kind
        if node.op_type != "Conv":
            return self.linear if kind in ("producer", "consumer") else 1
        multiple = self.depthwise if kind == "carrier" else self.convolution
        grouped = kind != "carrier" and convolution_groups(node) > 1
        # every group of a grouped convolution must be whole blocks, or all of it is computed by slow kernels
        if not self.parts or (grouped and channels % multiple == 0):
            return multiple
        if channels < _UNBLOCKED:
            return 1
        # Less than a block is read without blocks, which makes 1 x 1 convolutions twice as slow: an expansion of
        # EfficientNet takes 0.73 ms from 12 channels and 0.34 ms from 16. Kernels of 3 x 3 get faster all the same.
        blocked = multiple <= channels < 2 * multiple
        if blocked and (kind == "carrier" or (kind == "consumer" and _is_pointwise(node))):
            return multiple
        while multiple > _ALIGNMENT and multiple * self.parts > channels:
            multiple //= 2
        return multiple

    @staticmethod
    def up(count: int, most: int, multiple: int, beside: int = 0) -> int:
        """Return the next count that, with the `beside` channels that always stay, is a multiple; at most `most`."""
        return min(most, -(-(count + beside) // multiple) * multiple - beside)


def _is_pointwise(node: ir.Node) -> bool:
    """Return whether the kernels of a convolution have a single element."""
    return all(size == 1 for size in (dims_of(node.inputs[1]) or ())[2:])


EXACTLY = Rounding()
"""Counts stay as they are."""
