"""Round channel counts up to multiples at which a runtime is fast, but never above the count that there is.

onnxruntime's fast convolutions work on blocks of 8 or 16 channels: a depthwise convolution of 45 channels cannot use
them and takes four times as long as one of 48.

    >>> Rounding.to(16).up(45, 64, 16), Rounding.to(16).up(45, 46, 16)
    (48, 46)
"""

from dataclasses import dataclass

from onnx_tropnnc.analysis.channels import ChannelGroup, Place

__all__ = ["EXACTLY", "Rounding"]


@dataclass(frozen=True)
class Rounding:
    """A multiple for each kind of layer; a group of channels takes the largest of those of its layers."""

    convolution: int = 1
    depthwise: int = 1
    linear: int = 1

    def __str__(self) -> str:
        return f"multiples of {self.convolution} (Conv), {self.depthwise} (depthwise Conv), {self.linear} (linear)"

    @staticmethod
    def to(multiple: int) -> "Rounding":
        """Return the same multiple for all kinds of layers."""
        return Rounding(multiple, multiple, multiple)

    def multiple(self, group: ChannelGroup) -> int:
        """Return what the group's count should be a multiple of."""
        return max((self._of(place) for place in group.places), default=1)

    def _of(self, place: Place) -> int:
        node, kind = place.use.node, place.use.kind
        # The only weights that pass channels on are those of depthwise convolutions.
        if node.op_type == "Conv":
            return self.depthwise if kind == "carrier" else self.convolution
        return self.linear if kind in ("producer", "consumer") else 1

    @staticmethod
    def up(count: int, most: int, multiple: int, beside: int = 0) -> int:
        """Return the next larger count that is a multiple together with `beside` channels that stay; at most `most`."""
        return min(most, -(-(count + beside) // multiple) * multiple - beside)


EXACTLY = Rounding()
"""Leave counts as they are."""
