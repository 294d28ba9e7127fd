"""The changes that passes return: frozen values that the report is made of.

Change
├── Folded        a BatchNormalization was folded into the layer before it
├── NotFolded     a BatchNormalization could not be folded, with the reason
├── Merged        a channel group became smaller
├── Kept          a channel group stayed as it was, with the reason
├── Unreached     a layer whose channels are in no group stayed as it was, with the reason
├── Reconstructed a layer was solved for what it now reads, or kept its merged weights, with the reason
├── Verified      the result was compared with the original, or could not be, with the reason
└── Note          anything else that a person should know
"""

from dataclasses import dataclass
from typing import Literal

from onnx_tropnnc.graph.reasons import Reason
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.merging.predicted_error import Prediction
from onnx_tropnnc.running.verification import Verification
from onnx_tropnnc.theory.propositions import Bound

__all__ = [
    "Change",
    "Folded",
    "Kept",
    "Merged",
    "NotFolded",
    "Note",
    "Reconstructed",
    "Unchanged",
    "Unreached",
    "Verified",
]


# eq=False: otherwise a kind that is not compared field by field would inherit that all of its changes are equal
@dataclass(frozen=True, eq=False)
class Change:
    """One thing that a pass did, or refused to do."""


@dataclass(frozen=True)
class Unchanged:
    """Why no channel was removed, in words that follow a colon, and a sentence on what to try next."""

    why: str
    advice: str


@dataclass(frozen=True)
class Note(Change):
    """Anything else that a person should know, in one line."""

    text: str
    level: Literal["info", "warning"] = "info"
    advice: str | None = None
    """What to try next because of it, which the verdict then says; None: nothing in particular."""
    unchanged: Unchanged | None = None
    """What the verdict says of it where no channel was removed; None: nothing."""

    def __str__(self) -> str:
        """Return the line as it is printed: a warning begins with `warning: `."""
        return f"warning: {self.text}" if self.level == "warning" else self.text


@dataclass(frozen=True)
class Folded(Change):
    """The BatchNormalization `node` was folded into the layer `into`."""

    node: str
    into: str


@dataclass(frozen=True)
class NotFolded(Change):
    """The BatchNormalization `node` could not be folded."""

    node: str
    reason: str


# eq=False: a merge map holds arrays, which have no truth value when they are compared
@dataclass(frozen=True, eq=False)
class Merged(Change):
    """A channel group went from `before` to `after` channels."""

    group: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    before: int
    after: int
    parameters_saved: int
    macs_saved: int
    merge_map: MergeMap
    bound: Bound | None = None
    predicted: Prediction | None = None
    """The error of the layers that read the group, predicted when its size was decided; None where none could be."""


@dataclass(frozen=True)
class Kept(Change):
    """A channel group stayed as it was."""

    group: str
    producers: tuple[str, ...]
    channels: int
    reason: Reason
    pinned: bool = True
    """Whether the graph forbids a change; otherwise an option does, or there was nothing to merge."""


@dataclass(frozen=True)
class Unreached(Change):
    """A layer with weights whose channels are in no group stayed as it was."""

    node: str
    reason: Reason


@dataclass(frozen=True)
class Verified(Change):
    """The result was compared with the original, or could not be."""

    verification: Verification


@dataclass(frozen=True)
class Reconstructed(Change):
    """The layer `node` was solved for what it reads now; errors are relative, on samples that were held out."""

    node: str
    error_before: float | None = None
    error_after: float | None = None
    ridge: float | None = None
    """The strength of the ridge penalty that was chosen."""
    reason: str | None = None
    """Why the layer keeps its merged weights; None where it was solved."""
    refitted: str | None = None
    """The layer before this one, where both were refitted jointly."""
