"""Runs of one sample each, put together: models exported for a batch of 1 are run one by one, but not looked at so.

What is done with a run's tensors (moments, normal equations) costs far more a call than a row. Axis 0 counts samples,
or is 1 because nothing is there; in both cases rows behind each other are what each run alone would have shown.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["JOINED", "joined_runs"]

JOINED = 32
"""Runs put together."""

Key = TypeVar("Key")


def joined_runs(
    runs: Iterable[Mapping[Key, NDArray[Any]]], size: int = JOINED
) -> Iterator[tuple[int, Mapping[Key, NDArray[Any]]]]:
    """Up to `size` runs' tensors behind each other along axis 0, and how many runs these are.

    Runs stay apart where a tensor has another length along axis 0 than 1, or not the same shape in all of them.

    >>> [(count, found["x"].shape) for count, found in joined_runs([{"x": np.zeros((1, 3))}] * 5, 2)]
    [(2, (2, 3)), (2, (2, 3)), (1, (1, 3))]
    """
    waiting = iter(runs)
    while group := list(islice(waiting, size)):
        shapes = [{key: array.shape for key, array in run.items()} for run in group]
        alike = all(own == shapes[0] for own in shapes)
        if alike and all(shape[:1] == (1,) for shape in shapes[0].values()):
            yield len(group), {key: np.concatenate([run[key] for run in group]) for key in group[0]}
        else:
            yield from ((1, run) for run in group)
