"""What `compress` and the command line take, each option spelled once: its name, type, default and range.

Names are those of the command line in snake_case. Only light modules are imported here, since the command line builds
its help from these fields, and `--help` must not wait for numpy or onnx. What an option means to the rest of the
package is a property, which imports what it needs when it is asked for; which rewrites are made before channels are
removed is in chosen_rewrites.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnx_tropnnc import option_limits as limits
from onnx_tropnnc import option_rules as rules
from onnx_tropnnc.choices import (
    Blocks,
    Clustering,
    Device,
    Effort,
    Features,
    Heads,
    Linkage,
    MethodName,
    Queries,
    Reconstruct,
    RepresentativeInput,
    RoundingPreset,
    Streams,
    Ties,
    Variant,
)
from onnx_tropnnc.errors import OptionError, Setting
from onnx_tropnnc.option_checks import check_fields, option

if TYPE_CHECKING:
    from onnx_tropnnc.analysis.channels import ChannelGroup
    from onnx_tropnnc.analysis.group_filter import GroupFilter
    from onnx_tropnnc.analysis.rounding import Rounding
    from onnx_tropnnc.inputs.readers import Data
    from onnx_tropnnc.merging.clustering import Extent
    from onnx_tropnnc.merging.merge_map import MergeMap
    from onnx_tropnnc.merging.representatives import Method

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """What to do to a model: exactly one of option_rules.AMOUNTS says how much to remove, all other options say how.

        Options(ratio=0.3)                        Options(target_macs=0.5, data="samples.npz", round_to="arm")

    Attributes:
        ratio: the fraction of channels to remove, in [0, 1): of each group, or, where channels are selected by their
            activations, spread over the groups so that as many multiply-accumulates are left as then, but less is lost.
        threshold: merge channels that are closer than this distance; for clustering methods only.
        target_params: the fraction of the parameters to keep; they are removed where that changes outputs least.
        target_macs: the fraction of the multiply-accumulates to keep, likewise.
        target_latency: the fraction of the latency to keep, as ONNX Runtime measures it on this machine.
        max_drop: the points of top-1 agreement that may be lost; the result is as small as that allows.
        lossless: remove only what changes no output: equal, proportional, constant and unread channels.
        plan: merge maps by group, from an earlier run; `onnx_tropnnc.load_plan` reads them from a file.
        variant: what `threshold` is scaled by: `raw` (nothing), `1` (the dimension of the vectors) or `2` (their mean
            norm); None: `raw`, but `2` where a budget searches for the threshold.
        method: `auto`, the name of a method, or an object of your own (see merging.representatives.Method).
        clustering: `kmeans` or `ward`; None: the clustering that the method gives the best results with.
        features: the vectors that clustering methods compare; None: the weights.
        representative: what becomes of a cluster's incoming weights with method tropnnc: their `mean` or `sum`.
        linkage: the distance between clusters where `threshold` is used: `ward`, `complete` or `average`.
        iterations: how often method tropnnc-iterative alternates.
        sign_fixed: use the variant of tropnnc-iterative in the paper's Appendix A.6.
        uniform: remove the same fraction of every group, as the paper does, instead of spreading `ratio`.
        ratio_for: pairs (pattern of node names, ratio): another ratio for groups whose channels such nodes make, which
            is not spread; the last pair that matches counts.
        include: patterns of node names; only groups whose channels such nodes make are changed. Empty: all groups.
        exclude: patterns of node names; groups whose channels such nodes make are not changed.
        ties: `keep` leaves groups alone that residual connections tie together, `merge` merges them too; `auto` merges
            them with a budget or `lossless`, and keeps them otherwise.
        blocks: `remove` lets whole residual blocks go where the result is closer to the original so, `keep` none.
        streams: `rotate` rotates residual streams that only linear layers write and read, also through normalizations,
            to their principal components, of which the last may go; `keep` leaves normalised streams as they are;
            `auto` rotates those of transformers where there is a budget or a plan.
        queries: `narrow` removes features of queries and keys, all heads alike, in the basis in which the last ones add
            least to the scores; `keep` leaves them as wide as they are, and values in the bases that they have; `auto`
            removes them where there is a budget or a plan.
        factorize: write large layers and tables of embeddings as two factors, whose components a budget may remove.
        heads: `keep` keeps the number of attention heads and makes their values narrower; `merge` removes whole heads
            too: a ratio refers to heads then, and a budget chooses between heads, their widths and other channels.
        round_to: round channel counts up to a multiple of this number, or of what a runtime is fast at: that of this
            machine (`auto`), of a preset such as `tensorrt`, or of a Rounding; 1 leaves counts as they are.
        reconstruct: the samples that layers which read merged channels are solved on by least squares: `synthetic`,
            `data`, `auto` (data where there are some), or `off`: merging alone.
        refit: whether the layers that make what a solved layer reads are solved jointly with it.
        effort: how long all weights learn together from the original afterwards: `quick` (not at all), `standard` or
            `thorough` (about one and ten minutes on two cores).
        data: samples: an .npz file, a folder of .npy files, arrays by input name, or a CalibrationDataReader.
        input_shape: the shapes of dynamic inputs, by name.
        input_range: (low, high) of the values of an input, by name, for samples that are made up.
        min_agreement: the percentage of top-1 agreement to reach; merges are undone, group by group, until it is.
        min_cosine: the cosine between every output and the original's to reach, likewise.
        max_latency: the fraction of the original's latency that the result may take at most.
        verify: whether to compare the result with the original.
        bound_radius: state error bounds that hold for inputs of up to this length.
        memory: the gigabytes that samples and activations may take.
        device: where to compute: `cpu`, `cuda` (with a warning, the CPU where CUDA cannot be used) or `auto`.
        seed: the seed of everything random; the same seed gives the same bytes.

    Raises:
        OptionError: an option is out of range, unknown, or excluded by another one.
    """

    ratio: float | None = option(None, limits.REMOVED)
    threshold: float | None = option(None, limits.DISTANCE)
    target_params: float | None = option(None, limits.LEFT)
    target_macs: float | None = option(None, limits.LEFT)
    target_latency: float | None = option(None, limits.LEFT)
    max_drop: float | None = option(None, limits.AGREEMENT, needs="verify")
    lossless: bool = False
    plan: "Mapping[str, MergeMap] | None" = None
    variant: Variant | None = None
    method: "MethodName | str | Method" = "auto"
    clustering: Clustering | None = None
    features: Features | None = None
    representative: RepresentativeInput = "mean"
    linkage: Linkage = "ward"
    iterations: int = option(3, limits.ITERATIONS)
    sign_fixed: bool = False
    uniform: bool = False
    ratio_for: tuple[tuple[str, float], ...] = option((), limits.REMOVED)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ties: Ties = "auto"
    blocks: Blocks = "remove"
    streams: Streams = "auto"
    queries: Queries = "auto"
    factorize: bool = False
    heads: Heads = "keep"
    round_to: "int | RoundingPreset | Rounding" = "auto"
    reconstruct: Reconstruct = "auto"
    refit: bool = True
    effort: Effort = "quick"
    data: "Data | None" = None
    input_shape: Mapping[str, tuple[int, ...]] = field(default_factory=dict, metadata={"limits": limits.DIMENSION})
    input_range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    min_agreement: float | None = option(None, limits.AGREEMENT, needs="verify")
    min_cosine: float | None = option(None, limits.COSINE, needs="verify")
    max_latency: float | None = option(None, limits.SLOWEST, needs="verify")
    verify: bool = True
    bound_radius: float | None = option(None, limits.RADIUS)
    # 1.5 GB leaves room for the model and the libraries on a machine of 4 GB.
    memory: float = option(1.5, limits.GIGABYTES)
    device: Device = "auto"
    seed: int = option(0, limits.SEED)

    def __post_init__(self) -> None:
        check_fields(self)
        rules.check_amounts(vars(self))
        rules.check_method(self.method, self.representative, self.threshold)
        _ = self.merging_method  # refuses unknown methods and plugins that do not work, before anything is read
        rules.check_rounding(self.round_to)
        rules.check_percentage(self.min_agreement)
        rules.check_ranges(self.input_range)
        if self.reconstruct == "data" and self.data is None:
            raise OptionError("{} needs samples; give {}", Setting("reconstruct", "data"), Setting("data"))

    @property
    def method_name(self) -> str:
        """Return the method's name as on the command line; an object of the caller's says its own."""
        return self.method if isinstance(self.method, str) else self.method.name

    @property
    def extent(self) -> "Extent | None":
        """Return where the clustering stops, or None where a ratio or a budget says that."""
        from onnx_tropnnc.merging.clustering import Threshold

        return None if self.threshold is None else Threshold(self.threshold, self.scaling, self.linkage)

    @property
    def scaling(self) -> Variant:
        """Return what thresholds are scaled by.

        A threshold of the caller's is taken as it is; where a budget searches for one, the mean norm gives the best
        results.
        """
        return self.variant or ("2" if self.threshold is None else "raw")

    @property
    def group_filter(self) -> "GroupFilter":
        """Return which groups may change."""
        from onnx_tropnnc.analysis.group_filter import GroupFilter

        budget = self.target_params is not None or self.target_macs is not None
        # a plan names the groups that change, residual streams among them where a budget was spent on those
        automatic = "merge" if self.lossless or self.plan is not None or (budget and self.selects) else "keep"
        return GroupFilter(self.include, self.exclude, automatic if self.ties == "auto" else self.ties)

    @property
    def merges_heads(self) -> bool:
        """Return whether attention loses whole heads."""
        return self.heads == "merge"

    @property
    def selects(self) -> bool:
        """Return whether channels are selected by their activations; `auto` does where layers are solved afterwards."""
        automatic = self.method == "auto" and self.threshold is None and self.solves
        return not self.lossless and (automatic or self.method in rules.SELECTING)

    @property
    def rounding(self) -> "Rounding":
        """Return what kept counts are multiples of."""
        from onnx_tropnnc.analysis.rounding import Rounding
        from onnx_tropnnc.analysis.rounding_presets import rounding_named

        if isinstance(self.round_to, Rounding):
            return self.round_to
        if isinstance(self.round_to, str):
            return rounding_named(self.round_to, self.device, for_size=self.target_params is not None)
        return Rounding.to(self.round_to)

    @property
    def solves(self) -> bool:
        """Return whether the layers that read merged channels are solved for what they read now."""
        return self.reconstruct != "off" and not self.lossless

    @property
    def removes(self) -> bool:
        """Return whether more is asked for than what is exact."""
        ratios = self.ratio, *(ratio for _, ratio in self.ratio_for)
        return not self.lossless and (self.ratio is None or any(ratios))

    @property
    def runs_samples(self) -> bool:
        """Return whether channels are selected or layers solved on samples: of what is exact, nothing is."""
        return self.removes and (self.selects or self.solves)

    @property
    def memory_bytes(self) -> int:
        """Return the bytes that samples and activations may take."""
        return int(self.memory * 2**30)

    def ratio_of(self, group: "ChannelGroup") -> float:
        """Return the fraction of the group's channels to remove."""
        from onnx_tropnnc.analysis.group_filter import ratio_for

        return ratio_for(group, self.ratio or 0.0, self.ratio_for)

    def has_own_ratio(self, group: "ChannelGroup") -> bool:
        """Return whether a pair of `ratio_for` names the group."""
        from onnx_tropnnc.analysis.group_filter import matches

        return matches(group, tuple(pattern for pattern, _ in self.ratio_for))

    @property
    def demanding(self) -> bool:
        """Return whether verification must reach something."""
        return self.min_agreement is not None or self.min_cosine is not None

    @property
    def merging_method(self) -> "Method":
        """Return what makes the merge maps.

        Where `auto` can run or solve nothing it is what gives the best results then: Algorithm 2's representative on
        Ward's clusters. Half the channels of ResNet56 keep 55 % that way, and 48 % on clusters of k-means.

        Raises:
            OptionError: there is no method of this name, or it compares no vectors that `features` could choose.
        """
        from onnx_tropnnc.merging.chosen_method import chosen_method

        return chosen_method(
            self.method,
            clustering=self.clustering,
            features=self.features,
            representative=self.representative,
            iterations=self.iterations,
            sign_fixed=self.sign_fixed,
        )
