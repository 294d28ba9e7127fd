"""Print a report, the groups of a model, or a sweep as text, for a terminal or a pipe."""

import math
from collections import defaultdict
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.analysis.coverage import Coverage
from onnx_tropnnc.analysis.unreached import UnreachedLayer
from onnx_tropnnc.changes import Folded, Kept, Merged, Note, NotFolded, Reconstructed, Unreached
from onnx_tropnnc.command.groups_table import NO_WEIGHTS
from onnx_tropnnc.curves import Curve, Point
from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.report import Report
from onnx_tropnnc.reporting.unchanged import BY_OPTIONS, PINNED, UNDONE, WHOLE, counts_by_cause
from onnx_tropnnc.running.verification import Verification

__all__ = ["knee_lines", "print_coverage", "print_curve", "print_groups", "print_report"]


def print_report(report: Report, console: Console) -> None:
    """Print sizes before and after, what was merged, and what verification found."""
    _say(console, report.model)
    table = Table("", "before", "after", "saved")
    for column in table.columns[1:]:
        column.justify = "right"
    before, after = report.before, report.after
    _row(table, "parameters", before.parameters, after.parameters)
    if before.macs and after.macs is not None:
        _row(table, "multiply-accumulates", before.macs, after.macs)
    _row(table, "bytes of weights", before.weight_bytes, after.weight_bytes)
    latency = report.verification.latency if report.verification else None
    if latency is not None:
        table.add_row("latency (median)", f"{latency.before_ms:.3g} ms", f"{latency.after_ms:.3g} ms", latency.change)
    console.print(table)
    likely = report.verification.likely_agreement if report.verification else None
    if likely is not None:
        _say(console, f"top-1 agreement   {likely}")
    for line in _lines(report):
        _say(console, line)


def _say(console: Console, line: str) -> None:
    """Print one line as it is: without markup, colours for numbers, or line breaks, which would break searches."""
    console.print(escape(line), highlight=False, soft_wrap=True)


def _row(table: Table, name: str, before: int, after: int) -> None:
    saved = f"{100 * (before - after) / before:.1f} %" if before else ""
    table.add_row(name, f"{before:,}", f"{after:,}", saved)


def _lines(report: Report) -> Iterable[str]:
    merged, kept = report.of(Merged), report.of(Kept)
    folded, stayed = report.of(Folded), report.of(NotFolded)
    if folded or stayed:
        yield f"folded {len(folded)} of {len(folded) + len(stayed)} BatchNormalization nodes"
        for change in stayed:
            yield f"  {change.node} is not folded: {change.reason}"
    before, after = sum(m.before for m in merged), sum(m.after for m in merged)
    became = f": {before} channels became {after}" if merged else ""
    yield f"merged {len(merged)} of {len(merged) + len(kept)} channel groups{became}"
    if kept:
        numbers = counts_by_cause(kept)
        listed = ", ".join(f"{numbers[why]} {why}" for why in (PINNED, BY_OPTIONS, WHOLE, UNDONE) if numbers[why])
        yield f"  not merged: {listed}{'; --inspect says why' if numbers[PINNED] or numbers[BY_OPTIONS] else ''}"
    yield from _errors(merged, report.of(Reconstructed))
    yield from _bounds(merged)
    yield from _unreached(report.of(Unreached))
    if report.verification is not None:
        yield from _verified(report.verification)
    for note in report.of(Note):
        yield str(note)


def _unreached(layers: Iterable[Unreached]) -> Iterable[str]:
    """Yield a line for each reason why layers are in no group, with the first of these layers."""
    by_reason = defaultdict[str, list[str]](list)
    for layer in layers:
        by_reason[str(layer.reason)].append(layer.node)
    for reason, (first, *others) in by_reason.items():
        names = f"{first} and {len(others)} more layers are" if others else f"{first} is"
        yield f"  {names} in no group: {reason}"


def _errors(merged: Iterable[Merged], solved: Iterable[Reconstructed]) -> Iterable[str]:
    """Yield the largest relative errors of the layers that read merged groups."""
    predicted = [
        (m.predicted.error, f"{m.group}, from {m.predicted.source}") for m in merged if m.predicted is not None
    ]
    errors = ((s.node, s.error_before if s.error_after is None else s.error_after) for s in solved)
    measured = [(error, node) for node, error in errors if error is not None and math.isfinite(error)]
    parts = [
        f"{what} at most {100 * max(found)[0]:.2g} % ({max(found)[1]})"
        for what, found in (("predicted", predicted), ("measured", measured))
        if found
    ]
    if parts:
        yield f"  relative error of the layers that read merged channels: {', '.join(parts)}"


def _bounds(merged: Iterable[Merged]) -> Iterable[str]:
    """Yield the error bound of each group's consumers as merged, where bounds were asked for."""
    for change in merged:
        bound = change.bound
        if bound is not None and bound.holds:
            ball = f"for inputs of length up to {bound.radius:g}"
            yield f"  {change.group}: the error is at most {bound.value:.4g} {ball} ({bound.name})"
        elif bound is not None:
            yield f"  {change.group}: no error bound holds: {bound.why}"


def _verified(found: Verification) -> Iterable[str]:
    if found.not_verified is not None:
        yield f"not verified: {found.not_verified}"
    scored = [output for output in found.outputs if output.likely_agreement is not None]
    for output in found.outputs:
        # of a single row of scores the agreement stands above already
        agreement = f", top-1 agreement {output.likely_agreement}" if output in scored and len(scored) > 1 else ""
        yield (
            f"output {output.name}: relative L2 error {output.relative_l2:.3g}, cosine {output.cosine:.4f}, "
            f"largest difference {output.largest:.3g}{agreement}"
        )
        if output.top1_before is not None and output.top1_after is not None:
            accuracies = f"{output.top1_before:.2f} % before, {output.top1_after:.2f} % after"
            yield f"  top-1 accuracy on the given labels: {accuracies}"
    if found.outputs:
        yield f"verified on {found.samples} samples: {found.source}"
    if found.latency is not None:
        threads = f"{found.latency.threads} thread{'s' if found.latency.threads != 1 else ''}"
        spreads = f"{found.latency.before_spread_ms:.2g} and {found.latency.after_spread_ms:.2g} ms"
        runs = f"{found.latency.runs} runs of each model in turn"
        yield f"latency: {runs}, batch {found.latency.batch}, {threads}, interquartile ranges {spreads}"
    yield from found.notes
    for shortfall in found.shortfalls:
        yield f"FAILED: {shortfall}"


def print_groups(
    groups: Iterable[ChannelGroup],
    refusals: Iterable[Reason | None],
    others: Iterable[UnreachedLayer],
    console: Console,
) -> None:
    """Print every group with its nodes, and why it cannot change; then the layers that are in no group."""
    for group, refusal in zip(groups, refusals, strict=True):
        reason = group.pinned or refusal
        state = "pinned" if group.pinned is not None else "kept" if refusal else "free"
        _say(console, f"{group.name}: {group.channels} channels, {state}")
        for words, nodes in (
            ("made by", group.nodes("producer")),
            ("passed by", group.nodes("carrier")),
            ("tied by", group.ties),
            ("read by", group.nodes("consumer")),
        ):
            if nodes:
                _say(console, f"    {words}: {', '.join(nodes)}")
        for text in filter(None, (reason, *(group.reasons if group.pinned is None else ()))):
            _say(console, f"    why: {text}")

    for layer in others:
        _say(console, f"{layer.node}: in no group")
        _say(console, f"    why: {layer.reason}")


def print_coverage(found: Coverage, console: Console) -> None:
    """Print the share of the weights that are in groups that may change, and what keeps the rest, largest first."""
    if not found.parameters:
        _say(console, NO_WEIGHTS)
        return
    macs = "" if found.macs_share is None else f", {100 * found.macs_share:.1f} % of their multiply-accumulates"
    line = f"in groups that may change: {100 * found.share:.1f} % of the layers' {found.parameters:,} weights{macs}"
    _say(console, line)
    for reason, weights in found.reasons.items():
        line = f"    {100 * weights / max(1, found.parameters):.1f} % cannot change: {reason}"
        _say(console, line)


def print_curve(curve: Curve, console: Console) -> None:
    """Print a line for each point, then the knee of each method."""
    amounts = "/".join(dict.fromkeys(point.amount.replace("_", "-") for point in curve.points))
    headings = ("method", amounts, "parameters", "MACs", "agreement", "cosine", "ms before", "ms after")
    _say(console, curve.model)
    table = Table(*headings)
    for column in table.columns[1:]:
        column.justify = "right"
    for point in curve.points:
        table.add_row(point.method, f"{point.value:g}", *_point_cells(point))
    console.print(table)
    for point in curve.points:
        if point.refused:
            _say(console, f"{point.method} at {point.value:g}: {point.refused}")
    for line in knee_lines(curve):
        _say(console, line)


def knee_lines(curve: Curve) -> list[str]:
    """Return a sentence for each method that says where the knee of its curve is."""
    return [_knee_line(m, curve.knees.get(m)) for m in dict.fromkeys(point.method for point in curve.points)]


def _point_cells(point: Point) -> tuple[str, ...]:
    values = (point.parameters, "{:.1f} %"), (point.macs, "{:.1f} %"), (point.agreement, "{:.1f} %")
    more = (point.cosine, "{:.4f}"), (point.before_ms, "{:.3g}"), (point.after_ms, "{:.3g}")
    return tuple("" if value is None else text.format(value) for value, text in (*values, *more))


def _knee_line(method: str, knee: Point | None) -> str:
    if knee is None or knee.parameters is None or knee.fidelity is None:
        return f"{method}: no knee: there is no point after which fidelity falls faster"
    what = "agreement" if knee.agreement is not None else "cosine in percent"
    place = f"{knee.amount.replace('_', '-')} {knee.value:g}"
    return f"{method}: the knee is at {place}: {knee.parameters:.1f} % of the parameters, {what} {knee.fidelity:.1f}"
