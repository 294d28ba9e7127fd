"""Tables 1 to 3 and Figures 7 to 9: the same share of neurons or channels kept in every layer that is compressed.

Tables 1 to 3 compress the last hidden layer of five trained networks and give mean and standard deviation over them.
The figures are curves over one network; what the paper prints of them is pictures, so its statement stands beside ours.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType

from measuring import LabelledImages, Subject, top_1
from paper_tables import SizeTable, Spread

from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.merging.representatives import (
    L1,
    Iterative,
    Method,
    NeuralPath,
    Random,
    SingleOutput,
    TropNNC,
    Zonotope,
)
from onnx_tropnnc.options import Options

__all__ = ["CURVE_METHODS", "LAST_HIDDEN", "REMAINING", "Curves", "size_table_lines", "spread"]

LAST_HIDDEN = ("/fc1/Gemm",)
"""The layer of 1000 neurons in the CNN of Tables 1 to 3."""

GREEDY = "thinet, greedy only"
"""ThiNet's choice of channels without the least-squares scaling of the columns that are kept."""

SINGLE_OUTPUT = ("zonotope", "tropnnc-single")
"""The methods for networks of one output."""

METHODS: Mapping[str, Method] = MappingProxyType(
    {"zonotope": Zonotope(), "tropnnc-single": SingleOutput(), "neural-path": NeuralPath(), "tropnnc": TropNNC()}
)

CURVE_METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "random": Random(),
        "l1": L1(),
        "neural-path": NeuralPath(),
        "tropnnc": TropNNC(),
        "tropnnc-iterative": Iterative(3),
    }
)

REMAINING = (100.0, 90.0, 75.0, 50.0, 35.0, 25.0, 15.0, 10.0, 5.0)
"""Percentages of remaining neurons or channels on the curves."""

Networks = Callable[[bool, int], Path]
"""(whether it has a single output, seed) to a trained network."""


def spread(values: Sequence[float]) -> Spread:
    """Return the mean and the sample standard deviation (0 for a single value)."""
    return Spread(fmean(values), stdev(values) if len(values) > 1 else 0.0)


def size_table_lines(table: SizeTable, networks: Networks, data: LabelledImages, seeds: int) -> Iterator[str]:
    """Yield a table of the paper with our figures beside its own."""
    subjects = {
        single: [Subject.load(networks(single, seed)) for seed in range(seeds)]
        for single in {method in SINGLE_OUTPUT for method in table.methods}
    }
    yield "| remaining % | " + " | ".join(f"{method} | paper" for method in table.methods) + " |"
    yield "| --- |" + " --- | --- |" * len(table.methods)
    for percent, published in table.rows.items():
        cells = []
        for method, paper in zip(table.methods, published, strict=True):
            found = [_kept(subject, method, percent, data) for subject in subjects[method in SINGLE_OUTPUT]]
            cells += [_text(spread(found)), _text(paper)]
        yield f"| {percent:g} | {' | '.join(cells)} |"


def _kept(subject: Subject, method: str, percent: float, data: LabelledImages) -> float:
    """Return the accuracy with that share of the last hidden layer; the whole layer is the original network."""
    if percent == 100.0:
        return top_1(subject.folded, data)
    return top_1(subject.merged(METHODS[method], ratio=1 - percent / 100, include=LAST_HIDDEN), data)


def _text(value: Spread) -> str:
    return f"{value.mean:.2f} ± {value.deviation:.2f}"


@dataclass(frozen=True, eq=False)
class Curves:
    """Some layers of a network, compressed to any size.

    Attributes:
        subject: the network.
        layers: the names of those that are compressed.
        data: what accuracy is measured on.
        training: images that ThiNet selects by, the only method that looks at any; None: no curve of it.
        seeds: draws of `random`.
    """

    subject: Subject
    layers: tuple[str, ...]
    data: LabelledImages
    training: LabelledImages | None
    seeds: int

    def lines(self) -> Iterator[str]:
        """Yield the accuracy of every method by the percentage that remains; `random` is the mean over seeds."""
        names = [*CURVE_METHODS, *(["thinet", GREEDY] if self._decider else [])]
        yield "| remaining % | " + " | ".join(names) + " |"
        yield "| --- |" + " --- |" * len(names)
        for percent in REMAINING:
            yield f"| {percent:g} | {' | '.join(f'{self.accuracy(name, percent):.2f}' for name in names)} |"

    def accuracy(self, method: str, percent: float) -> float:
        """Return the accuracy of one point; the original network's where everything remains."""
        ratio = 1 - percent / 100
        if not ratio:
            return top_1(self.subject.folded, self.data)
        if method in ("thinet", GREEDY):
            assert self._decider is not None
            options = Options(
                ratio=ratio, uniform=True, method="thinet", include=self.layers, round_to=1, reconstruct="off"
            )
            model = self.subject.decided(self._decider, options, scaled=method == "thinet")
            return top_1(model, self.data)
        chosen = CURVE_METHODS[method]
        drawn = range(self.seeds if isinstance(chosen, Random) else 1)
        found = (self.subject.merged(chosen, ratio=ratio, include=self.layers, seed=seed) for seed in drawn)
        return fmean(top_1(model, self.data) for model in found)

    @cached_property
    def _decider(self) -> Decider | None:
        return None if self.training is None else self.subject.decider(self.training)
