"""What is known of a model's residual blocks: which of them maps empty, what they add, what is lost without them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.residual_blocks import ResidualBlock, groups_inside
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import Shapes
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.rewriting.block_removal import block_means, emptied_blocks, remove_blocks, without_block
from onnx_tropnnc.running.output_errors import output_errors

__all__ = ["Blocks"]

# A mean over samples and positions needs few samples; an error that only ranks blocks needs fewer still.
MEAN_SAMPLES, ERROR_SAMPLES = 128, 32


@dataclass
class Blocks:
    """The residual blocks of a model; what is measured of them is measured once.

    Attributes:
        model: the model with its BatchNormalizations folded and nothing merged.
        adjust: returns a copy that is adjusted to the statistics that BatchNormalization promised.
        shapes: those of its tensors.
        groups: its channel groups.
        samples: what to run it on; None where nothing can be run.
        memory: bytes that running it may take.
    """

    model: Model
    adjust: Callable[[], Model]
    shapes: Shapes
    groups: Sequence[ChannelGroup]
    samples: Samples | None
    memory: int
    _means: dict[str, NDArray[np.float64]] = field(init=False, default_factory=dict)
    _errors: dict[str, float] = field(init=False, default_factory=dict)

    @cached_property
    def _adjusted(self) -> Model:
        # where the adjusted copy does not run, the model is measured as it is
        try:
            return self.adjust()
        except NotRunnable:
            return self.model

    def emptied(self, maps: Mapping[str, MergeMap]) -> tuple[ResidualBlock, ...]:
        """Return the blocks of which the maps leave no channel."""
        return emptied_blocks(self.model, self.shapes, self.groups, maps)

    def whole(self, maps: Mapping[str, MergeMap]) -> Mapping[str, MergeMap]:
        """Return the maps without those that leave no channel of a group whose block would stay for other groups."""
        gone = {group.name for block in self.emptied(maps) for group in groups_inside(block, self.groups)}
        return {name: merge_map for name, merge_map in maps.items() if merge_map.size or name in gone}

    def without(self, maps: Mapping[str, MergeMap]) -> Model:
        """Return a copy of the model without the blocks that the maps empty, and with all other channels.

        Raises:
            NotRunnable: onnxruntime cannot run the model.
        """
        copy = self.model.clone()
        remove_blocks(copy, maps, self.means(maps))
        return copy

    def means(self, maps: Mapping[str, MergeMap]) -> Mapping[str, NDArray[np.float64]]:
        """Return by the name of each block that the maps empty the mean of what it adds, one number for each channel.

        Raises:
            NotRunnable: onnxruntime cannot run the model.
        """
        return self._means_of(self.emptied(maps))

    def errors(self, blocks: Sequence[ResidualBlock]) -> list[float]:
        """Return the error of the outputs without each of the blocks; see `output_errors`.

        Raises:
            NotRunnable: onnxruntime cannot run the model.
        """
        missing = [block for block in blocks if block.name not in self._errors]
        means = self._means_of(missing)
        if missing and self.samples is not None:
            variants = (without_block(self._adjusted, block.name, means[block.name]) for block in missing)
            found = output_errors(self._adjusted, variants, self.samples.thinned(ERROR_SAMPLES), self.memory)
            self._errors.update(zip((block.name for block in missing), found, strict=True))
        return [self._errors.get(block.name, math.inf) for block in blocks]

    def _means_of(self, blocks: Sequence[ResidualBlock]) -> Mapping[str, NDArray[np.float64]]:
        missing = [block for block in blocks if block.name not in self._means]
        if missing and self.samples is not None:
            few = self.samples.thinned(MEAN_SAMPLES)
            self._means.update(block_means(self._adjusted, missing, few, memory=self.memory))
        return {block.name: self._means[block.name] for block in blocks if block.name in self._means}
