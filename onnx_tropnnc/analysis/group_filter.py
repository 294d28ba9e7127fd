"""Choose which groups may change and by how much: by patterns of node names, and by what to do with residual ties."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnx_tropnnc.analysis.channels import ChannelGroup
from onnx_tropnnc.errors import OptionError, Setting
from onnx_tropnnc.graph.reasons import Reason

__all__ = ["GroupFilter", "matches", "ratio_for"]


@dataclass(frozen=True)
class GroupFilter:
    """Which groups may change, by the names of their nodes.

    Attributes:
        include: patterns (as in a shell) of which one must match a node of the group; empty: every group.
        exclude: patterns of which none may match.
        ties: `keep` leaves groups with a residual tie alone, as in the paper; `merge` takes them too. Gates, which
            multiply, are no residual ties.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ties: str = "keep"

    def __post_init__(self) -> None:
        if self.ties not in ("keep", "merge"):
            raise OptionError("{} is unknown; choose keep or merge", Setting("ties", self.ties))

    def refusal(self, group: ChannelGroup) -> Reason | None:
        """Return why an option keeps the group as it is, or None where it may change."""
        # A gate multiplies: leaving it alone would keep most of a transformer or a mobile network as it is.
        residual = group.residual_ties
        # Components of a rotated stream are there to be dropped, and rotary positions add features of queries.
        if residual and self.ties == "keep" and not (group.is_stream or group.is_heads or group.products):
            more = f" and {len(residual) - 1} more" if len(residual) > 1 else ""
            what = "combines" if len(residual) == 1 else "combine"
            text = f"{residual[0]}{more} {what} the channels with those of another activation (--ties keep)"
            return Reason("residual_tie", text)
        if self.include and not matches(group, self.include):
            return Reason("not_included", "no layer of the group matches --include")
        if self.exclude and matches(group, self.exclude):
            return Reason("excluded", "a layer of the group matches --exclude")
        return None


def matches(group: ChannelGroup, patterns: tuple[str, ...]) -> bool:
    """Return whether the name of a layer that makes the group's channels matches one of the patterns."""
    return any(fnmatchcase(node, pattern) for node in group.nodes("producer") for pattern in patterns)


def ratio_for(group: ChannelGroup, ratio: float, others: tuple[tuple[str, float], ...]) -> float:
    """Return the fraction of the group's channels to remove: that of the last pattern that matches, else `ratio`."""
    found = [other for pattern, other in others if matches(group, (pattern,))]
    return found[-1] if found else ratio
