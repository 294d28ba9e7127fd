"""Rules of single options, and between options, that no type and no range can say.

Only light modules are imported, as in options.py.
"""

from collections.abc import Mapping
from typing import get_args

from onnx_tropnnc import option_limits as limits
from onnx_tropnnc.choices import RepresentativeInput, RoundingPreset
from onnx_tropnnc.errors import OptionError, Setting
from onnx_tropnnc.option_checks import listed

__all__ = [
    "AMOUNTS",
    "SELECTING",
    "amounts_given",
    "check_amounts",
    "check_method",
    "check_percentage",
    "check_ranges",
    "check_rounding",
]

AMOUNTS = ("ratio", "threshold", "target_params", "target_macs", "target_latency", "max_drop", "lossless", "plan")
"""The options that say how much to remove."""

SELECTING = ("select", "thinet")
"""The methods that choose channels by what they do on samples; all others look at weights alone."""


def amounts_given(values: Mapping[str, object]) -> list[str]:
    """Return those of AMOUNTS that are given in `values`, which maps names to values."""
    return [name for name in AMOUNTS if values[name] is not None and values[name] is not False]


def check_amounts(values: Mapping[str, object]) -> None:
    """Raise OptionError unless exactly one of AMOUNTS is given, and a plan holds merge maps."""
    given = amounts_given(values)
    if len(given) != 1:
        said = f"{len(given)} are given" if given else "none is given; a ratio of 0.3 is a good start"
        places = ", ".join("{}" for _ in AMOUNTS)
        raise OptionError(f"exactly one of {places} must say how much to remove; {said}", *map(Setting, AMOUNTS))
    plan = values["plan"]
    if plan is not None and not isinstance(plan, Mapping):
        message = "{} must hold merge maps by group; onnx_tropnnc.load_plan reads them from a file"
        raise OptionError(message, Setting("plan", plan))


def check_method(method: object, representative: RepresentativeInput, threshold: float | None) -> None:
    """Raise OptionError where a representative or a threshold is given that the method does not use."""
    if representative != "mean" and method != "tropnnc":
        raise OptionError(
            "{} is a variation of {} only",
            Setting("representative", representative),
            Setting("method", "tropnnc"),
        )
    if method in SELECTING and threshold is not None:
        raise OptionError(
            "{} is for methods that cluster, and {} does not; give a ratio or a budget",
            Setting("threshold", threshold),
            Setting("method", method),
        )


def check_rounding(given: object) -> None:
    """Raise OptionError unless channel counts can be multiples of this: a number, a preset, or a Rounding."""
    presets = get_args(RoundingPreset)
    counts = given is not None and (not isinstance(given, int) or limits.MULTIPLE.hold(given))
    if not (given in presets if isinstance(given, str) else counts):
        raise OptionError("{} must be a whole number of 1 or more, {}", Setting("round_to", given), listed(presets))


def check_percentage(min_agreement: float | None) -> None:
    """Raise OptionError where an agreement looks like a fraction.

    1 % of agreement is what chance gives; whoever writes 0.98 means a fraction.
    """
    if min_agreement is not None and 0.0 < min_agreement <= 1.0:
        given, meant = Setting("min_agreement", min_agreement), f"{100.0 * min_agreement:g}"
        raise OptionError("{} is a percentage; did you mean {}?", given, meant)


def check_ranges(input_range: Mapping[str, tuple[float, float]]) -> None:
    """Raise OptionError where a range is empty."""
    for name, (low, high) in input_range.items():
        if not low < high:
            raise OptionError("{}: LOW must be below HIGH", Setting("input_range", {name: (low, high)}))
