"""Tables of non-uniform compression: one global threshold, CUP beside TropNNC, and both at equal numbers of parameters.

The paper does not say where its checkpoints are; checkpoints.py names what they probably are. On other networks its
thresholds bring other sizes, so rows at its thresholds are followed by rows at equal size, where both methods'
thresholds are found by bisection on the count.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from measuring import LabelledImages, Subject, nearest_threshold, size, top_1
from paper_tables import NonUniformTable, Row

from onnx_tropnnc.choices import Features, Linkage, Variant
from onnx_tropnnc.merging.clustering import Threshold
from onnx_tropnnc.merging.representatives import Cup, Iterative, Method, TropNNC

__all__ = ["CUP_CODE", "Rule", "ablation_lines", "equal_size_lines", "rules_of", "threshold_lines"]

_FEATURES: tuple[Features, ...] = ("cup", "weights")
_VARIANTS: tuple[Variant, ...] = ("raw", "2")


@dataclass(frozen=True)
class Rule:
    """A method of non-uniform compression without its threshold."""

    name: str
    method: Method
    variant: Variant
    linkage: Linkage = "ward"

    def at(self, threshold: float) -> Threshold:
        """Return where the clustering stops."""
        return Threshold(threshold, self.variant, self.linkage)


@dataclass(frozen=True)
class Point:
    """A compressed model, measured."""

    threshold: float
    parameters: int
    macs: int | None
    accuracy: float

    @property
    def cells(self) -> str:
        """Return the cells of a table; a multiply-accumulate counts as two FLOPS, as in the paper."""
        flops = "-" if self.macs is None else f"{2e-9 * self.macs:.3f}G"
        return f"{1e-6 * self.parameters:.3f}M | {flops} | {self.accuracy:.2f}"


CUP_CODE = Rule("CUP, its authors' code", Cup(features="cup-code"), "raw")
"""CUP with the vectors that its authors' code computes, which its paper does not describe."""


def rules_of(table: NonUniformTable) -> dict[tuple[str, str], Rule]:
    """Return the rules of a published table by (method, variant), in its order."""
    return {(row.method, row.variant): _rule(row, table.features) for row in table.rows}


def _rule(row: Row, features: Features) -> Rule:
    if row.method == "cup":
        return Rule("CUP", Cup(), row.variant)
    if row.method == "tropnnc-iterative":
        return Rule("TropNNC, 3 iterations", Iterative(3, features=features), row.variant)
    name = "TropNNC" if row.variant == "raw" else f"TropNNC (v{row.variant})"
    return Rule(name, TropNNC(features=features), row.variant)


def measured(subject: Subject, rule: Rule, threshold: float, data: LabelledImages) -> Point:
    """Return the measured result of a rule at a threshold."""
    model = subject.merged(rule.method, extent=rule.at(threshold))
    found = size(model)
    return Point(threshold, found.parameters, found.macs, top_1(model, data))


def measured_at_size(subject: Subject, rule: Rule, parameters: int, data: LabelledImages) -> Point:
    """Return the measured result of a rule at the threshold that brings it nearest to a number of parameters."""

    def count(threshold: float) -> int:
        return size(subject.merged(rule.method, extent=rule.at(threshold))).parameters

    return measured(subject, rule, nearest_threshold(count, parameters), data)


def threshold_lines(subject: Subject, table: NonUniformTable, data: LabelledImages) -> Iterator[str]:
    """Yield every row of a published table, with our result at the same threshold."""
    base = size(subject.folded)
    yield "| method | threshold | #params | FLOPS | accuracy | paper: #params | FLOPS | accuracy |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    parameters, flops, accuracy = table.original
    original = Point(0.0, base.parameters, base.macs, top_1(subject.folded, data))
    yield f"| original | - | {original.cells} | {parameters:.2f}M | {flops:.2f}G | {accuracy:.2f} |"
    rules = rules_of(table)
    for row in table.rows:
        rule = rules[row.method, row.variant]
        found = measured(subject, rule, row.threshold, data)
        paper = f"{row.parameters:.2f}M | {row.flops:.2f}G | {row.accuracy:.2f}"
        yield f"| {rule.name} | {row.threshold:g} | {found.cells} | {paper} |"


def equal_size_lines(
    subject: Subject, rules: Sequence[Rule], data: LabelledImages, fractions: Sequence[float]
) -> Iterator[str]:
    """Yield the rules at equal shares of the folded model's parameters; the best accuracy of a line is bold."""
    base = size(subject.folded).parameters
    heads = " | ".join(f"{rule.name}: threshold | #params | FLOPS | accuracy" for rule in rules)
    yield f"| target | {heads} |"
    yield "| --- |" + " --- | --- | --- | --- |" * len(rules)
    for fraction in fractions:
        points = [measured_at_size(subject, rule, round(fraction * base), data) for rule in rules]
        best = max(point.accuracy for point in points)
        yield f"| {1e-6 * fraction * base:.3f}M | {' | '.join(_cells(point, best) for point in points)} |"


def _cells(point: Point, best: float) -> str:
    parameters, flops, accuracy = point.cells.split(" | ")
    mark = "**" if point.accuracy == best else ""
    return f"{point.threshold:.4g} | {parameters} | {flops} | {mark}{accuracy}{mark}"


def ablation_lines(subject: Subject, data: LabelledImages, fraction: float) -> Iterator[str]:
    """Yield all eight combinations of three steps, each as in CUP or as in TropNNC, at one size."""
    target = round(fraction * size(subject.folded).parameters)
    yield "| 1: clustering vectors | 2: threshold | 3: representative | threshold | #params | FLOPS | accuracy |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for features, variant, largest in product(_FEATURES, _VARIANTS, (True, False)):
        rule = Rule("", Cup(features=features) if largest else TropNNC(features=features), variant)
        found = measured_at_size(subject, rule, target, data)
        names = (
            "CUP: norms of kernels" if features == "cup" else "weights",
            "CUP: raw" if variant == "raw" else "variant 2",
            "CUP: largest norm" if largest else "mean in, sum out",
        )
        yield f"| {' | '.join(names)} | {found.threshold:.4g} | {found.cells} |"
