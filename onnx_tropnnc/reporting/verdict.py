"""Say in words whether a result is a good one, and what to try next.

    judged(before, after, verification).line
    Good result: half the size, 1.9 times faster, top-1 agreement 99.2 %. Next: ...

Labels decide where they were given, then how often the largest score likely stays the same, then the relative L2 error.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from onnx_tropnnc.changes import Unchanged
from onnx_tropnnc.graph.sizes import Size
from onnx_tropnnc.running.latency import Latency
from onnx_tropnnc.running.verification import Verification

__all__ = ["Grade", "Verdict", "judged"]

Grade = Literal["good", "fair", "poor", "refused", "unchanged", "unknown"]
"""How good a result is.

good        few users would notice a difference
fair        worth a look at real inputs before it is used
poor        too much was removed
refused     it misses what was demanded
unchanged   no channel was removed
unknown     it was not compared with the original, or on made-up inputs that tell nothing of real ones
"""

# Points of accuracy or agreement that may be lost. One in a hundred is about what training again with another seed
# changes; one in ten is where the package warns, too.
_GOOD_LOSS, _FAIR_LOSS = 2.0, 10.0

# Relative L2 errors of outputs that are no scores: 5 % cannot be seen in an image or heard in speech, 20 % can.
_GOOD_ERROR, _FAIR_ERROR = 0.05, 0.2

_WORDS = {"good": "Good result", "fair": "Fair result", "poor": "Poor result", "refused": "Not good enough"}

_SAME_SIZE = "the same size"

_ADVICE = {
    "good": "--sweep 0.1:0.7:0.1 shows how much more could go.",
    "fair": "try it on your own inputs; --effort standard or samples (--data) often bring it closer.",
    "poor": "remove less, or give samples (--data) or --effort standard.",
    "refused": "ask for less, or give samples (--data) or --effort standard.",
    "unknown": "give samples with --data: made-up inputs cannot judge this result.",
}

_NOT_COMPARED = "leave out --no-verify, so that both models are compared."
_NOT_RUN = "compare both models in the runtime that you use; the report says why the original could not be run here."


@dataclass(frozen=True)
class Verdict:
    """How good a result is: for programs, in words, and what to try next."""

    grade: Grade
    text: str
    advice: str

    @property
    def line(self) -> str:
        """Return the verdict as one line for a terminal."""
        return f"{self.text} Next: {self.advice}"


def judged(
    before: Size,
    after: Size,
    found: Verification | None,
    to_remove_more: str | None = None,
    *,
    unchanged: Unchanged | None = None,
) -> Verdict:
    """Return the verdict on a result, from its sizes and its comparison with the original.

    Args:
        before: the original's size.
        after: the result's size.
        found: what the comparison found; None where there was none.
        to_remove_more: what to try next where an option kept most of what another one was to remove.
        unchanged: why no channel was removed; None where some were.
    """
    if unchanged is not None:
        return _fitting(_kept_all(before, after, found, unchanged, to_remove_more), found)
    grade = _grade(found)
    advice = _ADVICE[grade] if to_remove_more is None or grade in ("poor", "refused") else to_remove_more
    if grade == "unknown" and (found is None or not found.outputs):
        advice = _NOT_COMPARED if found is None else _NOT_RUN
    facts = [_size(before, after)]
    if found is not None and found.latency is not None:
        facts.append(_speed(found.latency))
    facts.append(_difference(found))
    said = ", ".join(fact for fact in facts if fact)
    text = f"{_WORDS[grade]}: {said}." if grade in _WORDS else f"{said.capitalize()}."
    return _fitting(Verdict(grade, text, advice), found)


def _fitting(verdict: Verdict, found: Verification | None) -> Verdict:
    """Return the verdict, whose advice asks for more samples where some were given."""
    if found is None or found.made_up:
        return verdict
    return replace(verdict, advice=verdict.advice.replace("samples (--data)", "more samples"))


def _kept_all(
    before: Size, after: Size, found: Verification | None, unchanged: Unchanged, to_remove_more: str | None
) -> Verdict:
    """Return the verdict on a result that has all channels of the original."""
    refused = found is not None and not found.passed
    text = f"No channel was removed: {unchanged.why}."
    if refused:
        text = f"{_WORDS['refused']}, though no channel was removed: {unchanged.why}."
    elif (size := _size(before, after)) != _SAME_SIZE:
        latency = found.latency if found is not None else None
        faster = latency is not None and latency.change.endswith("faster")
        speed = f" and {_speed(latency)}" if latency is not None and faster else ""
        text += f" Steps that change no output made the model {size}{speed}."
    advice = unchanged.advice if to_remove_more is None or refused else to_remove_more
    return Verdict("refused" if refused else "unchanged", text, advice)


def _grade(found: Verification | None) -> Grade:
    if found is not None and not found.passed:
        return "refused"
    if found is None or not found.outputs:
        return "unknown"
    lost, error = _lost(found), found.relative_l2
    likely = found.likely_agreement
    if likely is not None and not likely.known and all(o.top1_before is None for o in found.outputs):
        return "unknown"
    if lost is not None:
        return "good" if lost <= _GOOD_LOSS else "fair" if lost <= _FAIR_LOSS else "poor"
    assert error is not None
    return "good" if error <= _GOOD_ERROR else "fair" if error <= _FAIR_ERROR else "poor"


def _lost(found: Verification) -> float | None:
    """Return the points of accuracy that were lost where labels are known, else those of agreement; else None."""
    drops = [
        o.top1_before - o.top1_after for o in found.outputs if o.top1_before is not None and o.top1_after is not None
    ]
    if drops:
        return max(drops)
    return None if found.likely_agreement is None else 100.0 - found.likely_agreement.middle


def _size(before: Size, after: Size) -> str:
    """Return `half the size`, `12 % smaller`, or `the same size`."""
    share = after.parameters / before.parameters if before.parameters else 1.0
    named = {0.5: "half the size", 0.25: "a quarter of the size", 1 / 3: "a third of the size"}
    for value, words in named.items():
        # Within a twentieth nobody says another number.
        if abs(share - value) < value / 20:
            return words
    return _SAME_SIZE if share > 0.995 else f"{100 * (1 - share):.0f} % smaller"


def _speed(latency: Latency) -> str:
    return "as fast as before" if latency.change == "the same" else latency.change.replace(" x ", " times ")


def _difference(found: Verification | None) -> str:
    """Return how far the outputs are from the original's, in the words of what is known."""
    if found is None or not found.outputs:
        return f"not compared with the original{'' if found is None else ', which could not be run here'}"
    labelled = [o for o in found.outputs if o.top1_before is not None]
    if labelled:
        return f"accuracy {labelled[0].top1_before:.1f} % before and {labelled[0].top1_after:.1f} % after"
    what = "scores" if found.agreement is not None else "outputs"
    error = 100 * (found.relative_l2 or 0.0)
    if not math.isfinite(error):
        return f"{what} are NaN or infinite where the original's are not"
    if found.likely_agreement is not None and found.likely_agreement.known:
        # the grade follows it: scores may differ a lot while the largest one stays the same
        return f"top-1 agreement {found.likely_agreement}"
    about = f"{error:.1g}" if 0 < error < 1 else f"{error:.0f}"
    return f"{what} differ by about {about} %"
