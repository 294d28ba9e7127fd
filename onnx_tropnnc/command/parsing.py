"""Read the options that click leaves as text: NAME:1,3,224,224, NAME:LOW,HIGH, PATTERN=R, and the values of a sweep."""

import math
from typing import get_args

from onnx_tropnnc.choices import Amount
from onnx_tropnnc.errors import OptionError, Setting

__all__ = ["parse_input_range", "parse_input_shape", "parse_ratio_for", "parse_sweep"]

# More points than this are a slip in the step: at some seconds a point they would take hours.
_MOST = 1000


def parse_input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Return `NAME:1,3,224,224` as ("NAME", (1, 3, 224, 224)); a name may hold colons.

    Raises:
        OptionError: the text has another form.
    """
    name, _, sizes = text.rpartition(":")
    parts = [part.strip() for part in sizes.split(",")]
    if not name or not all(part.isdecimal() and len(part) <= 10 and int(part) > 0 for part in parts):
        raise OptionError(f"--input-shape {text}: write NAME:1,3,224,224, whole numbers above 0")
    return name, tuple(int(part) for part in parts)


def parse_input_range(text: str) -> tuple[str, tuple[float, float]]:
    """Return `NAME:LOW,HIGH` as ("NAME", (low, high)); a name may hold colons.

    Raises:
        OptionError: the text has another form, or LOW is not below HIGH.
    """
    name, _, bounds = text.rpartition(":")
    try:
        low, high = (float(part) for part in bounds.split(","))
    except ValueError:
        low = high = math.nan
    if not (name and math.isfinite(low) and math.isfinite(high) and low < high):
        raise OptionError(f"--input-range {text}: write NAME:LOW,HIGH, two numbers, LOW below HIGH")
    return name, (low, high)


def parse_ratio_for(text: str) -> tuple[str, float]:
    """Return `PATTERN=R` as ("PATTERN", R); a pattern may hold equals signs.

    Raises:
        OptionError: the text has another form.
    """
    pattern, _, ratio = text.rpartition("=")
    try:
        return pattern, float(ratio)
    except ValueError:
        raise OptionError(
            "{}: write PATTERN=R, as in --ratio-for '/layer1/*=0.2'", Setting("ratio_for", text)
        ) from None


def parse_sweep(text: str) -> tuple[Amount, tuple[float, ...]]:
    """Return the amount and the values of a sweep as the command line writes it.

    `0.1:0.7:0.1` goes over ratios; `target-params=0.9:0.3:0.1` names another amount. Values may fall.

    Raises:
        OptionError: the text has another form, or goes over too many values.

    >>> parse_sweep("target-macs=0.9:0.7:0.1")
    ('target_macs', (0.9, 0.8, 0.7))
    """
    name, _, numbers = text.rpartition("=")
    amount = next((a for a in get_args(Amount) if a == (name or "ratio").replace("-", "_")), None)
    try:
        first, last, step = (float(part) for part in numbers.split(":"))
    except ValueError:
        first = last = step = 0.0
    if amount is None or step == 0 or not all(map(math.isfinite, (first, last, step))):
        names = ", ".join(f"{a.replace('_', '-')}=" for a in get_args(Amount)[1:])
        raise OptionError(f"--sweep {text}: write A:B:STEP for ratios, as in 0.1:0.7:0.1, or put {names} before it")
    count = abs(last - first) / abs(step)
    if count > _MOST:
        raise OptionError(f"--sweep {text}: these are more than {_MOST} points")
    # rounding keeps 0.1 + 2 * 0.1 from being 0.30000000000000004, and the small number a last point from being missed
    towards = abs(step) if last >= first else -abs(step)
    return amount, tuple(round(first + i * towards, 10) for i in range(int(count + 1e-9) + 1))
