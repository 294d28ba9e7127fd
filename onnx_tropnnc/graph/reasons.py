"""Why something stays as it is: a kind for programs, a sentence for people.

Programs branch on the kind and never read the sentence, so that a sentence can be reworded freely.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Reason", "ReasonKind", "joined"]

ReasonKind = Literal[
    # the graph around the channels
    "model_output",
    "subgraph",
    "unknown_operator",
    "recurrent",
    "no_producer",
    "no_consumer",
    # what an operator does with them
    "mixed_channels",
    "picked_channels",
    "other_axis",
    "mismatched_channels",
    "unsupported_form",
    # what is not known before the model runs
    "unknown_shape",
    "shape_arithmetic",
    "runtime_weight",
    # weights
    "quantized",
    "shared_weight",
    "not_finite",
    # what a person asked for
    "residual_tie",
    "not_included",
    "excluded",
    "not_planned",
    "nothing_to_merge",
    "target_reached",
    "undone",
    # the model as a whole
    "old_opset",
]
"""What a reason is about.

model_output          the channels leave the model, or the body of an If, Loop or Scan
subgraph              an If, Loop or Scan reads them
unknown_operator      there is no rule for an operator that reads them
recurrent             an LSTM, GRU or RNN takes them as its state, or has the batch first
no_producer           no layer with weights makes them
no_consumer           no layer with weights reads them
mixed_channels        an operator computes across channels: a Softmax over them, a product of two activations
picked_channels       an operator picks some of them by index, or in steps
other_axis            an operator treats their axis as space, time or the batch
mismatched_channels   they meet channels that are not known, or another number of them
unsupported_form      an operator that is known, in a form for which there is no rule
unknown_shape         a rank, a dimension or an axis is not known before the model runs
shape_arithmetic      the model computes with the number of channels
runtime_weight        a weight, a bias or a parameter is computed at run time
quantized             a weight or an operator is quantized
shared_weight         one weight or one number serves several readers, which would need different ones
not_finite            a weight or a parameter, as its operator uses it, is NaN or infinite
residual_tie          a residual connection ties them to other channels, and the option is to leave those alone
not_included          no pattern of those to include matches
excluded              a pattern of those to exclude matches
not_planned           the plan that is applied does not name them
nothing_to_merge      at the asked size none of them goes
target_reached        the budget is met without them
undone                they were merged, and that was undone: verification failed, or the model became larger or slower
old_opset             the model's operator set is older than the rules
"""


@dataclass(frozen=True)
class Reason:
    """Why something stays as it is."""

    kind: ReasonKind
    text: str

    def __str__(self) -> str:
        return self.text


def joined(reasons: Iterable[Reason]) -> Reason | None:
    """Return several reasons as one, of the first one's kind; None where there is none.

    >>> str(joined((Reason("model_output", "y is a model output"), Reason("recurrent", "LSTM_1 is recurrent"))))
    'y is a model output; LSTM_1 is recurrent'
    """
    listed = tuple(reasons)
    return Reason(listed[0].kind, "; ".join(reason.text for reason in listed)) if listed else None
