"""Adam, with a rate that rises over a warm-up and falls along a cosine."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Adam", "rate_at"]

# How much of the running means stays at a step. Hundreds of steps are few: 0.999 would remember the first ones.
FIRST, SECOND = 0.9, 0.99

# Keeps the first division defined where a gradient is 0.
SMALLEST = 1e-12


def rate_at(step: int, steps: int, peak: float, warm_up: int) -> float:
    """Return the rate of a step: up to `peak` over `warm_up` steps, and down to 0 along half a cosine.

    >>> [round(rate_at(step, 100, 1.0, 10), 2) for step in (0, 9, 50, 99)]
    [0.1, 0.98, 0.5, 0.0]
    """
    return peak * min(1.0, (step + 1) / warm_up) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


class Adam:
    """Changes arrays in place; what it remembers is as large as they are, twice."""

    def __init__(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        self._arrays = arrays
        self._first = {name: np.zeros_like(array) for name, array in arrays.items()}
        self._second = {name: np.zeros_like(array) for name, array in arrays.items()}
        self._count = 0

    def step(self, gradients: Mapping[str, NDArray[Any]], rates: Mapping[str, float | NDArray[Any]]) -> None:
        """Move every array that has a gradient against it, at its own rate or rates, which broadcast with it."""
        self._count += 1
        first_share, second_share = 1.0 - FIRST**self._count, 1.0 - SECOND**self._count
        for name, gradient in gradients.items():
            first, second = self._first[name], self._second[name]
            first += (1.0 - FIRST) * (gradient - first)
            second += (1.0 - SECOND) * (gradient * gradient - second)
            root = np.sqrt(second / np.float32(second_share))
            root += np.float32(SMALLEST)
            self._arrays[name][...] -= np.asarray(rates[name] / first_share, np.float32) * (first / root)
