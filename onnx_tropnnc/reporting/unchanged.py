"""Say why no channel was removed from a model, and what to try next.

why_unchanged(report.of(Kept), report.of(Note))
Unchanged("of 4 channel groups 1 is pinned by the graph and 3 are kept by options", "--inspect says which ...")
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from onnx_tropnnc.changes import Kept, Note, Unchanged

__all__ = ["BY_OPTIONS", "PINNED", "UNDONE", "WHOLE", "counts_by_cause", "why_unchanged"]

PINNED, BY_OPTIONS, WHOLE, UNDONE = "pinned by the graph", "kept by options", "with nothing to remove", "undone"
"""What keeps a group as it is."""

# All other kinds of reasons come from options.
_CAUSES = {"nothing_to_merge": WHOLE, "target_reached": WHOLE, "undone": UNDONE}

# What is said of one group, and of several.
_SAID = {
    PINNED: ("is pinned by the graph", "are pinned by the graph"),
    BY_OPTIONS: ("is kept by an option", "are kept by options"),
    WHOLE: ("has no channel to spare at this size", "have no channel to spare at this size"),
    # the reason says why, and begins with "undone"
    UNDONE: ("was", "were"),
}

_ADVICE = {
    # because of a demand that was missed, or because the model became larger
    UNDONE: "demand less, ask for another amount, or give samples (--data).",
    WHOLE: "ask for more, such as --ratio 0.3; --inspect says what may change.",
    BY_OPTIONS: "--inspect says which option keeps which group.",
    PINNED: "--inspect says why each group is pinned.",
}


def counts_by_cause(kept: Iterable[Kept]) -> Counter[str]:
    """Return how many groups each cause kept."""
    return Counter(PINNED if k.pinned else _CAUSES.get(k.reason.kind, BY_OPTIONS) for k in kept)


def why_unchanged(kept: Sequence[Kept], notes: Iterable[Note]) -> Unchanged:
    """Return why no channel was removed: what a note gives as the reason, else what kept the groups."""
    counts = counts_by_cause(kept)
    stated = [note.unchanged for note in notes if note.unchanged is not None]
    if stated and not counts[UNDONE]:
        return stated[-1]
    if not kept:
        return Unchanged("the model has no layer whose channels can be told apart", "--inspect says why.")
    # what a person can change most easily comes first
    first = next((cause for cause in (UNDONE, WHOLE, BY_OPTIONS) if counts[cause]), PINNED)
    parts = [f"{counts[cause]} {_SAID[cause][counts[cause] > 1]}" for cause in _SAID if counts[cause]]
    if counts[UNDONE]:
        parts[-1] += f" {next(k.reason.text for k in kept if k.reason.kind == 'undone')}"
    *others, last = parts
    listed = f"{', '.join(others)} and {last}" if others else last
    tied = first == BY_OPTIONS and any(k.reason.kind == "residual_tie" for k in kept)
    advice = f"{_ADVICE[first]} --ties merge changes groups that residual sums tie." if tied else _ADVICE[first]
    return Unchanged(f"of {len(kept)} channel group{'s' * (len(kept) > 1)} {listed}", advice)
