"""What `compress` and the command line take, each option spelled once.

Names are those of the command line in snake_case; the README says what each one is for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.group_selection import Selection, ratio_for
from onnx_tropnnc.analysis.rounding import Rounding
from onnx_tropnnc.choices import Clustering, Features, Linkage, RepresentativeInput, Variant
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.inputs.readers import Data
from onnx_tropnnc.merging.baselines import Cup, NeuralPath
from onnx_tropnnc.merging.clustering import Extent, Threshold
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.merging.plugins import plugin_methods
from onnx_tropnnc.merging.representatives import METHODS, Iterative, Method, TropNNC
from onnx_tropnnc.running.activations import FRONTIER_BYTES
from onnx_tropnnc.searching.fast_multiples import fast_multiples

__all__ = ["AMOUNTS", "Options", "amounts_given"]

AMOUNTS = ("ratio", "threshold", "target_params", "target_macs", "target_latency", "max_drop", "lossless", "plan")
"""The options that say how much to remove."""

SELECTING = ("select", "thinet")
"""The methods that choose channels by what they do on samples; all others look at weights alone."""


@dataclass(frozen=True)
class Options:
    """What to do to a model: exactly one of AMOUNTS says how much goes, the others how.

        Options(ratio=0.3)                        Options(target_macs=0.5, data="samples.npz", round_to="auto")

    Attributes:
        ratio: the fraction of channels to remove from each group, in [0, 1).
        threshold: merge channels closer than this; with `variant` and `linkage`, for clustering methods.
        target_params: the fraction of the parameters to keep, taken away where it hurts least.
        target_macs: the same for multiply-accumulates.
        target_latency: the fraction of the latency to keep, measured by onnxruntime on this machine.
        max_drop: points of top-1 agreement that may be lost; as small as that allows.
        lossless: only what changes no output: equal, proportional, constant and unread channels.
        plan: merge maps by group, from an earlier run (deciding.plans.load_plan).
        variant: what the threshold is scaled by: `raw`, `1` (dimension) or `2` (mean norm); None: raw, 2 with budgets.
        method: `auto`, a name as on the command line, or a method of your own (see merging.representatives.Method).
        clustering: `kmeans` or `ward`; None: what the method is best with.
        features: what clustering methods look at; None: the weights.
        representative: `mean` or, with method tropnnc, `sum`.
        linkage: of the threshold's tree: `ward`, `complete` or `average`.
        iterations: of method tropnnc-iterative.
        sign_fixed: its variant of the paper's Appendix A.6.
        ratio_for: pairs (pattern of node names, ratio) that differ from `ratio`; the last match counts.
        include: patterns of node names; only groups made by such nodes change. Empty: all.
        exclude: patterns of node names that stay.
        ties: `keep` leaves groups that residual connections tie alone, `merge` takes them too; `auto` tries both
            where error curves meet a budget, merges them where only what is exact goes, and keeps them otherwise.
        heads: `keep` leaves attention heads in number and makes their values narrower, `merge` takes whole heads.
        round_to: a number of which kept counts are multiples, `auto` (measured on onnxruntime here), or a Rounding;
            None: 1, but `auto` with `target_latency`.
        reconstruct: `auto`, `off` (merging alone), `synthetic` or `data`: what consumers are solved on.
        refit: whether the layers that make what consumers read are solved with them.
        data: samples: an .npz file, a folder of .npy files, arrays by input name, or a CalibrationDataReader.
        input_shape: shapes of dynamic inputs by name.
        input_range: (low, high) by input name, for samples that are made up.
        min_agreement: percent of top-1 agreement to reach; groups are undone until it holds.
        min_cosine: cosine of every output to reach, likewise.
        verify: whether to compare the result with the original.
        bound_radius: state error bounds for inputs of up to this length.
        memory: gigabytes that activations may take while solving.
        device: `cpu`, `cuda` (the CPU with a warning where there is none) or `auto`.
        seed: of everything random; the same seed gives the same bytes.

    Raises:
        OptionError: an option is out of range, unknown, or excluded by another one.
    """

    ratio: float | None = None
    threshold: float | None = None
    target_params: float | None = None
    target_macs: float | None = None
    target_latency: float | None = None
    max_drop: float | None = None
    lossless: bool = False
    plan: Mapping[str, MergeMap] | None = None
    variant: Variant | None = None
    method: str | Method = "auto"
    clustering: Clustering | None = None
    features: Features | None = None
    representative: RepresentativeInput = "mean"
    linkage: Linkage = "ward"
    iterations: int = 3
    sign_fixed: bool = False
    ratio_for: tuple[tuple[str, float], ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ties: str = "auto"
    heads: str = "keep"
    round_to: int | str | Rounding | None = None
    reconstruct: str = "auto"
    refit: bool = True
    data: Data | None = None
    input_shape: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    input_range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    min_agreement: float | None = None
    min_cosine: float | None = None
    verify: bool = True
    bound_radius: float | None = None
    memory: float = FRONTIER_BYTES / 2**30
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if len(amounts_given(vars(self))) != 1:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in AMOUNTS)
            raise OptionError(f"give exactly one of {names.replace('--plan', '--apply-plan')}")
        if self.max_drop is not None and not 0.0 <= self.max_drop <= 100.0:
            raise OptionError(f"--max-drop {self.max_drop:g} is outside [0, 100]: it is percent of agreement")
        if self.max_drop is not None and not self.verify:
            raise OptionError("--max-drop needs verification; leave out --no-verify")
        for ratio in (self.ratio or 0.0, *(other for _, other in self.ratio_for)):
            if not 0.0 <= ratio < 1.0:
                raise OptionError(f"ratio {ratio:g} is outside [0, 1): it is the fraction of channels to remove")
        targets = {"params": self.target_params, "macs": self.target_macs, "latency": self.target_latency}
        for name, target in targets.items():
            if target is not None and not 0.0 < target <= 1.0:
                raise OptionError(f"--target-{name} {target:g} is outside (0, 1]: it is the fraction to keep")
        if isinstance(self.round_to, int | str) and not _rounds(self.round_to):
            raise OptionError(f"--round-to {self.round_to}: must be a whole number of 1 or more, or auto")
        demands = ("--min-agreement", self.min_agreement, 100.0), ("--min-cosine", self.min_cosine, 1.0)
        for name, value, high in demands:
            if value is not None and not 0.0 <= value <= high:
                raise OptionError(f"{name} {value:g} is outside [0, {high:g}]")
            if value is not None and not self.verify:
                raise OptionError(f"{name} needs verification; leave out --no-verify")
        if self.heads not in ("keep", "merge"):
            raise OptionError(f"--heads {self.heads}: unknown; choose keep or merge")
        if self.representative not in get_args(RepresentativeInput):
            raise OptionError(f"--representative {self.representative}: unknown; choose mean or sum")
        if self.representative != "mean" and self.method != "tropnnc":
            raise OptionError(f"--representative {self.representative} is a variation of --method tropnnc only")
        if not self.memory > 0:
            raise OptionError(f"--memory {self.memory:g}: must be above 0; it is gigabytes for activations")
        if self.clustering not in (None, *get_args(Clustering)):
            raise OptionError(f"--clustering {self.clustering}: unknown; choose {', '.join(get_args(Clustering))}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise OptionError(f"--device {self.device}: unknown; choose auto, cpu or cuda")
        if self.reconstruct not in ("auto", "off", "synthetic", "data"):
            raise OptionError(f"--reconstruct {self.reconstruct}: unknown; choose auto, off, synthetic or data")
        if self.reconstruct == "data" and self.data is None:
            raise OptionError("--reconstruct data needs samples; give --data")
        if self.method in SELECTING and self.threshold is not None:
            raise OptionError(
                f"--threshold is for clustering methods; give --ratio or a target with --method {self.method}"
            )
        _ = self.merging_method, self.selection  # unknown ones are refused before any work

    @property
    def method_name(self) -> str:
        """As on the command line; of a method given as an object its own."""
        return self.method if isinstance(self.method, str) else self.method.name

    @property
    def extent(self) -> Extent | None:
        """Where the clustering stops, or None for a ratio."""
        return None if self.threshold is None else Threshold(self.threshold, self.scaling, self.linkage)

    @property
    def scaling(self) -> Variant:
        """What thresholds are scaled by: raw where one is given; where a budget looks for it, what measures best."""
        return self.variant or ("2" if self.threshold is None else "raw")

    @property
    def selection(self) -> Selection:
        """Which groups may change."""
        budget = self.target_params is not None or self.target_macs is not None
        automatic = "merge" if self.lossless or (budget and self.selects) else "keep"
        return Selection(self.include, self.exclude, automatic if self.ties == "auto" else self.ties)

    @property
    def merges_heads(self) -> bool:
        """Whether attention heads are what is compressed of attention."""
        return self.heads == "merge"

    @property
    def selects(self) -> bool:
        """Whether channels are selected by their activations; `auto` does where consumers are solved afterwards."""
        automatic = self.method == "auto" and self.threshold is None and self.solves
        return not self.lossless and (automatic or self.method in SELECTING)

    @property
    def measures_rounding(self) -> bool:
        """Whether kept counts are multiples of what onnxruntime is measured to be fast at."""
        return self.round_to == "auto" or (self.round_to is None and self.target_latency is not None)

    @property
    def rounding(self) -> Rounding:
        """What kept counts are multiples of; `auto` is measured once a process."""
        if self.measures_rounding:
            return fast_multiples(self.device)
        return self.round_to if isinstance(self.round_to, Rounding) else Rounding.to(int(self.round_to or 1))

    @property
    def solves(self) -> bool:
        """Whether consumers are solved for what they read after the merge."""
        return self.reconstruct != "off" and not self.lossless

    @property
    def memory_bytes(self) -> int:
        """What the activations that are kept between layers may take."""
        return int(self.memory * 2**30)

    def ratio_of(self, group: ChannelGroup) -> float:
        """The fraction of a group's channels to remove."""
        return ratio_for(group, self.ratio or 0.0, self.ratio_for)

    @property
    def demanding(self) -> bool:
        """Whether verification must reach something."""
        return self.min_agreement is not None or self.min_cosine is not None

    @property
    def merging_method(self) -> Method:
        """What makes the merge maps.

        `auto`, where nothing can be run or reconstructed, is what measures best then: Algorithm 2's representative on
        Ward's clusters. On ResNet56 at half the channels that keeps 43 % where k-means keeps 23 %.
        """
        method = self._named_method
        if self.features is None:
            return method
        if self.features not in get_args(Features):
            raise OptionError(f"--features {self.features}: unknown; choose {', '.join(get_args(Features))}")
        if self.method in SELECTING or not isinstance(method, TropNNC | Iterative | NeuralPath | Cup):
            raise OptionError(f"--features: {self.method_name} looks at no clustering vectors of its own choice")
        return replace(method, features=self.features)

    @property
    def _named_method(self) -> Method:
        if not isinstance(self.method, str):
            return self.method
        if self.method in ("auto", *SELECTING):
            return TropNNC(clustering=self.clustering or "ward")
        if self.method == "tropnnc":
            return TropNNC(self.representative, clustering=self.clustering or "kmeans")
        if self.method == "tropnnc-iterative":
            return Iterative(self.iterations, self.sign_fixed, clustering=self.clustering or "kmeans")
        methods = METHODS if self.method in METHODS else {**METHODS, **plugin_methods()}
        if self.method not in methods:
            raise OptionError(f"method {self.method} is unknown; choose {', '.join(('auto', *SELECTING, *methods))}")
        return methods[self.method]()


def amounts_given(values: Mapping[str, object]) -> list[str]:
    """Those of AMOUNTS that `values`, by name, say something of."""
    return [name for name in AMOUNTS if values[name] is not None and values[name] is not False]


def _rounds(round_to: int | str) -> bool:
    return round_to == "auto" if isinstance(round_to, str) else round_to >= 1
