"""Searching by halving: both directions, refusals, a limit of rounds."""

import pytest

from onnx_tropnnc.bisection import Refused, search, unless_refused
from onnx_tropnnc.errors import OptionError


@pytest.mark.parametrize("edge", range(1, 12))
def test_the_edge_is_found_wherever_it_is(edge: int) -> None:
    inside = edge if 1 <= edge <= 9 else None
    assert search(0, 10, lambda number: number >= edge, wanted="smallest") == inside
    assert search(0, 10, lambda number: number <= edge, wanted="largest") == min(edge, 9)


def test_none_passes() -> None:
    assert search(0, 10, lambda _: False, wanted="smallest") is None
    assert search(0, 10, lambda _: False, wanted="largest") is None
    assert search(4, 5, lambda _: True, wanted="largest") is None


@pytest.mark.parametrize("least", range(1, 11))
def test_what_is_refused_is_too_small(least: int) -> None:
    def trial(number: int) -> bool | Refused:
        return Refused("too small") if number < least else number <= 7

    assert search(0, 10, trial, wanted="largest") == (7 if least <= 7 else None)
    refused_below = search(0, 10, lambda n: Refused("too small") if n < least else True, wanted="smallest")
    assert refused_below == (least if least <= 9 else None)


def test_rounds_limit_the_trials() -> None:
    tried: list[int] = []
    assert search(0, 1000, lambda n: not tried.append(n), wanted="largest", rounds=3) == 875  # type: ignore[func-returns-value]
    assert tried == [500, 750, 875]


def test_a_refusal_becomes_an_error_where_nobody_looks_at_it() -> None:
    assert unless_refused(3) == 3
    with pytest.raises(OptionError, match=r"^out of reach$"):
        unless_refused(Refused("out of reach"))
