"""Search whole numbers by halving, where a trial may pass, fail or be refused."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from onnx_tropnnc.errors import OptionError

__all__ = ["Refused", "search", "unless_refused"]

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Refused:
    """What a trial returns that a budget does not allow: nothing that small can be reached."""

    reason: str


def unless_refused(found: T | Refused) -> T:
    """Return what was found.

    Raises:
        OptionError: it was refused; the message is the reason.
    """
    if isinstance(found, Refused):
        raise OptionError(found.reason)
    return found


def search(
    low: int,
    high: int,
    trial: Callable[[int], bool | Refused],
    *,
    wanted: Literal["smallest", "largest"],
    rounds: int | None = None,
) -> int | None:
    """Return the smallest or largest number between `low` and `high`, both excluded, that passes; None where none does.

    Args:
        low: a number below all that are tried.
        high: a number above all that are tried.
        trial: tries a number. `smallest` expects that all above a number that passes pass too, `largest` that all below
            it do, down to those that are refused: a refused number is too small, and larger ones are tried next.
        wanted: which one of those that pass.
        rounds: the most trials; None: as many as it takes.

    >>> search(0, 10, lambda number: number * number >= 30, wanted="smallest")
    6
    """
    found = None
    tried = 0
    while high - low > 1 and tried != rounds:
        middle = (low + high) // 2
        answer = trial(middle)
        tried += 1
        _LOG.debug("trial of %d, between %d and %d: %s", middle, low, high, answer)
        passes = not isinstance(answer, Refused) and bool(answer)
        if passes:
            found = middle
        # a refused number is too small for a budget, whichever end is wanted
        upward = isinstance(answer, Refused) or passes == (wanted == "largest")
        low, high = (middle, high) if upward else (low, middle)
    return found
