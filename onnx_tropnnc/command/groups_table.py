"""Print what `--inspect` found as one table that fits a terminal of 80 columns: the largest groups first.

group                            channels  weights    MACs  may change
conv2                                 512   61.0 %  40.2 %  yes
fc                                     10    0.4 %   0.0 %  no: model output
... and 31 smaller groups             992    3.1 %   2.0 %  25 of them
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onnx_tropnnc.graph.reasons import ReasonKind

__all__ = ["MEANINGS", "NO_WEIGHTS", "print_table"]

NO_WEIGHTS = "nothing may change: no layer has floating-point weights"

# With the heading, the explanations and the totals this stays within one tall screen; below the fortieth group of the
# deep networks that were tried, each group holds less than 1 % of the weights.
_ROWS = 40

# What 80 columns leave for a name when all other columns are as wide as they get.
_NAME = 31

MEANINGS: Mapping[ReasonKind, str] = {
    "model_output": "the channels leave the model, or the body of an If, Loop or Scan",
    "subgraph": "an If, Loop or Scan reads the channels",
    "unknown_operator": "docs/operators.md does not list an operator behind the layer",
    "recurrent": "a recurrent layer takes the channels as its state",
    "no_producer": "no layer with weights makes the channels",
    "no_consumer": "no layer with weights reads the channels",
    "mixed_channels": "an operator computes across channels, as Softmax does",
    "picked_channels": "an operator picks some channels by their numbers",
    "other_axis": "an operator treats the channels as space, time or the batch",
    "mismatched_channels": "the channels meet others that cannot be followed",
    "unsupported_form": "an operator is used in a form without a rule",
    "unknown_shape": "a shape is unknown; try --input-shape",
    "shape_arithmetic": "the model computes with the channel count; simplify it first",
    "runtime_weight": "a weight is computed while the model runs",
    "quantized": "compress the float model, quantize afterwards",
    "shared_weight": "one weight has several readers that would need different ones",
    "not_finite": "a weight is NaN or infinite; export again",
    "residual_tie": "additions tie the channels; --ties merge or a budget frees them",
    "not_included": "--include does not match",
    "excluded": "--exclude matches",
    "not_planned": "the plan does not name the group",
    "nothing_to_merge": "at this size no channel of the group goes",
    "target_reached": "the budget is met without the group",
    "undone": "merging the group was undone",
    "old_opset": "convert the model to opset 7 or later first",
}
"""What each kind of reason means, in half a line, and what to do where something can be done."""


def print_table(facts: Mapping[str, Any], console: Console) -> None:
    """Print the groups, what the reasons mean, and the share of the weights that may change."""
    console.print(escape(facts["model"]), highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 2), show_edge=False)
    table.add_column("group", width=_NAME, no_wrap=True)
    for heading in ("channels", "weights", "MACs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("may change", no_wrap=True)
    rows = sorted((*facts["groups"], *facts["layers"]), key=lambda row: (-row["parameters"], -(row["macs"] or 0)))
    # A last row that sums up one group would be as long as that group's own.
    shown = rows if len(rows) <= _ROWS + 1 else rows[:_ROWS]
    for row in shown:
        name = row["group"] if "group" in row else f"{row['node']} (layer)"
        channels = f"{row['channels']:,}" if "channels" in row else ""
        table.add_row(escape(_shortened(name)), channels, *_shares([row], facts), _may(row))
    if rest := rows[len(shown) :]:
        free = sum(_changes(row) for row in rest)
        channels = sum(row.get("channels", 0) for row in rest)
        table.add_row(f"... and {len(rest)} smaller groups", f"{channels:,}", *_shares(rest, facts), f"{free} of them")
    console.print(table)
    for line in _lines(rows, facts):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _shortened(name: str) -> str:
    plain = " ".join(name.split())
    return plain if len(plain) <= _NAME else f"…{plain[1 - _NAME :]}"


def _shares(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> tuple[str, str]:
    """Return the rows' share of the weights and of the multiply-accumulates; `?` where that is not known."""
    weights = sum(row["parameters"] for row in rows) / max(1, facts["parameters"])
    macs = [row["macs"] for row in rows]
    # Layers in the bodies of If, Loop and Scan count as no multiply-accumulates: how often they run is not known.
    known = facts["macs"] and None not in macs
    return f"{100 * weights:.1f} %", f"{100 * sum(macs) / facts['macs']:.1f} %" if known else "?"


def _changes(row: Mapping[str, Any]) -> bool:
    return row.get("state") in ("free", "partly free")


def _may(row: Mapping[str, Any]) -> str:
    """Return `yes`, or the kind of the reason; the full reason is printed with --verbose."""
    kind = (row["kind"] or "in no group").replace("_", " ")
    if not _changes(row):
        return f"no: {kind}"
    return "yes" if row["state"] == "free" else "partly"


def _lines(rows: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> Iterable[str]:
    kinds = dict.fromkeys(row["kind"] for row in rows if not _changes(row) and row["kind"] is not None)
    for kind in kinds:
        yield f"  {kind.replace('_', ' ')}: {MEANINGS[kind]}"
    if not facts["parameters"]:
        yield NO_WEIGHTS
        return
    macs = "" if facts["macs_share"] is None else f", {100 * facts['macs_share']:.1f} % of their MACs"
    yield f"in groups that may change: {100 * facts['share']:.1f} % of {facts['parameters']:,} weights{macs}"
    yield "weights, MACs: of the layers that make the channels; --verbose names all layers"
