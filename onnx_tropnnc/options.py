"""What `compress` and the command line take, each option spelled once.

Names are those of the command line in snake_case; the README says what each one is for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from onnx_tropnnc.baselines import Cup, NeuralPath
from onnx_tropnnc.clustering import Clustering, Extent, Linkage, Threshold, Variant
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.features import Features
from onnx_tropnnc.representatives import METHODS, Iterative, Method, TropNNC

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """Exactly one of `ratio` and `threshold` says how much to remove."""

    ratio: float | None = None
    threshold: float | None = None
    variant: Variant = "raw"
    method: str = "auto"
    clustering: Clustering | None = None
    features: Features | None = None
    linkage: Linkage = "ward"
    iterations: int = 3
    sign_fixed: bool = False
    ratio_for: tuple[tuple[str, float], ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ties: str = "keep"
    data: str | Path | None = None
    input_shape: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    input_range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    min_agreement: float | None = None
    min_cosine: float | None = None
    verify: bool = True
    bound_radius: float | None = None
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.threshold is None):
            raise OptionError("give exactly one of --ratio and --threshold")
        demands = ("--min-agreement", self.min_agreement, 100.0), ("--min-cosine", self.min_cosine, 1.0)
        for name, value, high in demands:
            if value is not None and not 0.0 <= value <= high:
                raise OptionError(f"{name} {value:g} is outside [0, {high:g}]")
            if value is not None and not self.verify:
                raise OptionError(f"{name} needs verification; leave out --no-verify")
        if self.device not in ("auto", "cpu", "cuda"):
            raise OptionError(f"--device {self.device}: unknown; choose auto, cpu or cuda")
        _ = self.merging_method  # an unknown one is refused before any work

    @property
    def extent(self) -> Extent | None:
        """Where the clustering stops, or None for a ratio."""
        return None if self.threshold is None else Threshold(self.threshold, self.variant, self.linkage)

    @property
    def demanding(self) -> bool:
        """Whether verification must reach something."""
        return self.min_agreement is not None or self.min_cosine is not None

    @property
    def merging_method(self) -> Method:
        """What makes the merge maps.

        `auto` is what measures best without data: Algorithm 2's representative on Ward's clusters. On ResNet56 at half
        the channels that keeps 43 % where k-means keeps 23 %.
        """
        method = self._named_method
        if self.features is None:
            return method
        if self.features not in get_args(Features):
            raise OptionError(f"--features {self.features}: unknown; choose {', '.join(get_args(Features))}")
        if not isinstance(method, TropNNC | Iterative | NeuralPath | Cup):
            raise OptionError(f"--features: {method.name} looks at no clustering vectors of its own choice")
        return replace(method, features=self.features)

    @property
    def _named_method(self) -> Method:
        if self.method == "auto":
            return TropNNC(clustering=self.clustering or "ward")
        if self.method == "tropnnc":
            return TropNNC(clustering=self.clustering or "kmeans")
        if self.method == "tropnnc-iterative":
            return Iterative(self.iterations, self.sign_fixed, clustering=self.clustering or "kmeans")
        if self.method not in METHODS:
            raise OptionError(f"method {self.method} is unknown; choose auto, {', '.join(METHODS)}")
        return METHODS[self.method]()
