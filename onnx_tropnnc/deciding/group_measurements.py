"""Measure channel groups on samples, each group once: rankings, energies of ThiNet, and what adjusts activations.

Running samples and ranking channels take most of the time of a decision, which may be asked for again with another
ratio or budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.deciding.greedy_ranking import Ranking
from onnx_tropnnc.deciding.planning import rank_groups
from onnx_tropnnc.deciding.thinet import output_energies, removal_ranking
from onnx_tropnnc.deciding.weight_ranking import ranking_by_weights
from onnx_tropnnc.errors import NotRunnable, OptionError, Setting
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.options import Options
from onnx_tropnnc.rewriting.statistics_affines import affines_for
from onnx_tropnnc.rewriting.statistics_matching import NO_AFFINES, Affine
from onnx_tropnnc.rewriting.workspace import Workspace
from onnx_tropnnc.running.sessions import runtime_missing

__all__ = ["GroupMeasurements"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Measurement(Protocol[T_co]):
    """A function that measures something of each group on samples."""

    def __call__(
        self,
        model: Model,
        groups: Sequence[ChannelGroup],
        samples: Samples,
        *,
        affines: Mapping[str, Affine] = ...,
        seed: int = 0,
        memory: int = MEMORY,
    ) -> Mapping[str, T_co]:
        """Return the measurement of each group by its name; the arguments are those of `rank_groups`."""


@dataclass
class GroupMeasurements:
    """What samples tell of the channel groups of one model.

    What is measured of a group depends on the model, the samples, the seed and the memory, and on no other group or
    option. So these tables may be filled in place: whatever was asked before, a question has the same answer.

    Attributes:
        model: the model with its BatchNormalizations folded and nothing merged; it is not changed.
        samples: what it runs on; None where nothing can be run.
        energies: by group, the (n, n) sums of products of what its channels contribute to outputs (thinet.py).
        overflowed: the groups that were found to have activations too large for float32.
    """

    model: Model
    samples: Samples | None
    energies: dict[str, NDArray[np.float64]] = field(init=False, default_factory=dict)
    overflowed: set[str] = field(init=False, default_factory=set)
    _rankings: dict[str, Ranking] = field(init=False, default_factory=dict)
    _affines: Mapping[str, Affine] | None = field(init=False, default=None)

    def is_seen(self, group: ChannelGroup) -> bool:
        """Return whether samples tell about the group: it is in no body, and its activations fit in float32."""
        return group.body is None and group.name not in self.overflowed

    def ranked(self, groups: Sequence[ChannelGroup], options: Options) -> Mapping[str, Ranking]:
        """Return the order in which each group's channels are kept: by their weights where samples do not tell.

        Raises:
            OptionError: there are no samples to rank groups on.
            NotRunnable: onnxruntime cannot run the model.
        """
        outside = [group for group in groups if group.body is None]
        if options.method != "thinet":
            found = self._measured(self._rankings, outside, options, rank_groups)
        else:
            energies = self._measured(self.energies, outside, options, output_energies)
            seen = [group for group in outside if self.is_seen(group)]
            found = {g.name: removal_ranking(energies[g.name], np.flatnonzero(g.blocks < 0)) for g in seen}
        # these groups get sizes from the ranking of their weights, and clustering merges them
        workspace = Workspace(self.model)
        return {**found, **{g.name: ranking_by_weights(g, workspace) for g in groups if not self.is_seen(g)}}

    def _measured(
        self, known: dict[str, T], groups: Sequence[ChannelGroup], options: Options, measure: Measurement[T]
    ) -> Mapping[str, T]:
        """Return `known` after measuring the groups that it lacks."""
        missing = [group for group in groups if group.name not in known and self.is_seen(group)]
        if missing and self.samples is None:
            why = runtime_missing() or "nothing can be run here"
            raise OptionError("{} runs the model on samples: {}", Setting("method", options.method), why)
        if missing and self.samples is not None:
            run = partial(measure, self.model, missing, self.samples, seed=options.seed, memory=options.memory_bytes)
            try:
                found = run(affines=self.affines(options))
            except NotRunnable:
                # the copy that is adjusted to BatchNormalization's statistics does not run: measure the model as it is
                found = run()
            known.update(found)
            self.overflowed.update(group.name for group in missing if group.name not in found)
        return known

    def affines(self, options: Options) -> Mapping[str, Affine]:
        """Return what adjusts the samples' activations to the model's statistics; it is computed once.

        Raises:
            NotRunnable: onnxruntime cannot run the model so.
        """
        if self._affines is None and self.samples is not None:
            self._affines = affines_for(self.model, self.samples, memory=options.memory_bytes)
        return self._affines or NO_AFFINES
