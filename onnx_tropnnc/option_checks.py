"""One check for all options: the type of each field says what it may hold, and its `Limits` say which numbers.

    @dataclass(frozen=True)
    class Options:
        ratio: float | None = option(None, Limits(0.0, 1.0, "it is the fraction of channels to remove"))
        ties: Ties = "auto"                    a Literal: the type lists the values
        data: "Data | None" = None             a type in quotes is open: whoever uses the value checks it

    check_fields(options)                      raises an OptionError that names the first field that does not hold

No number may be NaN or infinite, wherever it stands in a tuple or a mapping.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from onnx_tropnnc.errors import OptionError, Setting

__all__ = ["Limits", "check_fields", "listed", "option", "refuse_searches"]

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """The interval that an option's numbers lie in, and what they mean."""

    low: float
    high: float
    meaning: str
    excludes_low: bool = False
    excludes_high: bool = False

    def hold(self, number: Any) -> bool:
        """Return whether the number lies in the interval; NaN lies in none."""
        above = number > self.low if self.excludes_low else number >= self.low
        return bool(above and (number < self.high if self.excludes_high else number <= self.high))

    def __str__(self) -> str:
        """Return the interval as mathematics writes it: `[0, 1)`."""
        opening, closing = "(" if self.excludes_low else "[", ")" if self.excludes_high else "]"
        return f"{opening}{self.low:.10g}, {self.high:.10g}{closing}"


def option(default: T, limits: Limits | None = None, *, needs: str | None = None) -> T:
    """Return a dataclass field with this default, whose value must keep the limits.

    Args:
        default: the value where the caller gives none.
        limits: what holds for every number in the value.
        needs: another field, without which this one has no effect; it must not be off where this one is given.
    """
    # The type is that of the default, as dataclasses.field declares it too: mypy then checks the default.
    made: T = field(default=default, metadata={"limits": limits, "needs": needs})
    return made


def check_fields(options: Any) -> None:
    """Hold every field of a dataclass against its type, its limits and the field that it needs.

    Raises:
        OptionError: a value has another type or is out of range, or what it needs is switched off.
    """
    for entry in fields(options):
        value = getattr(options, entry.name)
        if value is None or isinstance(entry.type, str):
            continue
        _check_type(entry.name, value, entry.type)
        limits: Limits | None = entry.metadata.get("limits")
        for item in _items(value):
            for number in _numbers(item):
                _check_number(Setting(entry.name, item), number, limits)
        needs = entry.metadata.get("needs")
        if needs is not None and getattr(options, needs) is False:
            raise OptionError(
                "{} cannot be judged with {}; leave out one of the two",
                Setting(entry.name, value),
                Setting(needs, False),
            )


def listed(values: Iterable[object]) -> str:
    """Return the values as a choice in words.

    >>> listed(["raw", "1", "2"])
    'raw, 1 or 2'
    """
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last


def _check_type(name: str, value: object, kind: Any) -> None:
    if _fits(value, kind):
        return
    choices = [choice for part in (kind, *get_args(kind)) if get_origin(part) is Literal for choice in get_args(part)]
    if choices:
        raise OptionError("{} is unknown; choose {}", Setting(name, value), listed(choices))
    words = [_words(part) for part in get_args(kind) or (kind,) if part is not type(None)]
    wanted = _words(kind) if get_origin(kind) in (tuple, Mapping) else listed(words)
    raise OptionError("{} has the wrong type; it must be {}", Setting(name, value), wanted)


def _words(kind: Any) -> str:
    plain = {float: "a number", int: "a whole number", bool: "True or False", str: "a string"}
    return plain.get(kind, str(kind).removeprefix("collections.abc."))


def _fits(value: Any, kind: Any) -> bool:
    """Return whether the value is of this type; lists pass for tuples, and numpy's numbers for Python's."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        # A string is a sequence of strings too, but nobody who writes exclude="Conv*" means its letters.
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return False
        wanted = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(wanted) and all(map(_fits, value, wanted))
    if origin is Mapping:
        return isinstance(value, Mapping) and all(all(map(_fits, item, parts)) for item in value.items())
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    return isinstance(value, kind)


def _items(value: Any) -> Iterable[Any]:
    """Return what a message shows: the value itself, or the entries that it consists of."""
    if isinstance(value, Mapping):
        return ({name: entry} for name, entry in value.items())
    return value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _numbers(item: Any) -> Iterable[Any]:
    if isinstance(item, Mapping):
        return _numbers(tuple(item.values()))
    if isinstance(item, Sequence) and not isinstance(item, str):
        return [number for part in item for number in _numbers(part)]
    return [item] if isinstance(item, Real) and not isinstance(item, bool) else []


def _check_number(setting: Setting, number: Any, limits: Limits | None) -> None:
    if limits is not None and not limits.hold(number):
        raise OptionError("{} is outside {}: {}", setting, str(limits), limits.meaning)
    try:
        finite = math.isfinite(number)
    except OverflowError:  # a whole number that no float can hold
        finite = False
    if not finite:
        raise OptionError("{} is not a finite number", setting)


def refuse_searches(options: Any) -> None:
    """Raise OptionError where only several compressions can meet the options, which passes in a row do not make."""
    for name in ("max_drop", "target_latency"):
        if getattr(options, name) is not None:
            remedies = Setting("target_macs"), Setting("target_params")
            message = "{} is met by compressing several times, which passes alone cannot do"
            raise OptionError(f"{message}; call compress(), or give {{}} or {{}}", Setting(name), *remedies)
