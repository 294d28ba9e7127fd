"""Channel counts that a runtime likes: a kept count is rounded UP to a multiple, never above what there is.

onnxruntime's fast convolutions work on blocks of 8 or 16 channels. A depthwise convolution of 45 channels leaves them
and takes four times as long as one of 48.

    >>> Rounding.to(16).up(45, 64, 16), Rounding.to(16).up(45, 46, 16)
    (48, 46)
"""

from dataclasses import dataclass

from onnx_tropnnc.analysis.channels import ChannelGroup, Place

__all__ = ["EXACTLY", "Rounding"]


@dataclass(frozen=True)
class Rounding:
    """A multiple for each kind of layer; a group takes the largest of the layers that it passes through."""

    convolution: int = 1
    depthwise: int = 1
    linear: int = 1

    def __str__(self) -> str:
        return f"multiples of {self.convolution} (Conv), {self.depthwise} (depthwise Conv), {self.linear} (linear)"

    @staticmethod
    def to(multiple: int) -> "Rounding":
        """The same multiple everywhere."""
        return Rounding(multiple, multiple, multiple)

    def multiple(self, group: ChannelGroup) -> int:
        """What the group's count should be a multiple of."""
        return max((self._of(place) for place in group.places), default=1)

    def _of(self, place: Place) -> int:
        node, kind = place.use.node, place.use.kind
        if node.op_type == "Conv":
            return self.depthwise if kind == "carrier" else self.convolution
        return self.linear if kind in ("producer", "consumer") else 1

    @staticmethod
    def up(count: int, most: int, multiple: int, beside: int = 0) -> int:
        """The next count that, with the `beside` channels that always stay, is a multiple; at most `most`."""
        return min(most, -(-(count + beside) // multiple) * multiple - beside)


EXACTLY = Rounding()
"""Counts stay as they are."""
