"""Fold channels that have one constant value, whatever the input (rewriting/constant_channels.py has the algebra)."""

from dataclasses import dataclass, field

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.analysis.group_filter import GroupFilter
from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.rewriting.constant_channels import fold_constants, silent_channels

__all__ = ["FoldConstantChannels"]

# Samples on which constants are read off: such channels do not depend on the input, more samples show the same.
_FEW = 4


@dataclass(frozen=True)
class FoldConstantChannels:
    """Remove channels whose weights are all zeros from the layers that read them.

    Attributes:
        samples: what to run the model on where it has such channels; None: nothing is folded.
        group_filter: which groups may change.
        memory: the bytes that running the model may take.
    """

    samples: Samples | None = None
    group_filter: GroupFilter = field(default_factory=GroupFilter)
    memory: int = MEMORY
    name: str = "fold constant channels"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Return one note for each group with such channels, or one note that says why they stay."""
        groups = find_channel_groups(model, shapes_of(model))
        silent = {
            group: len(found)
            for group in groups
            if group.body is None and self.group_filter.refusal(group) is None and len(found := silent_channels(group))
        }
        if not silent:
            return ()
        try:
            if self.samples is None:
                raise NotRunnable("there are no samples to run the model on")
            folded = fold_constants(model, silent, self.samples.first(_FEW), self.memory)
        except NotRunnable as error:
            return (Note(f"{sum(silent.values())} channels without weights stay: {error}"),)
        return tuple(Note(f"{count} constant channels of {name} folded into biases") for name, count in folded.items())
