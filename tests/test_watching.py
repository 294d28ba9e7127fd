"""Runs of one sample each, put together."""

import numpy as np

from onnx_tropnnc.running.watching import joined_runs


def test_rows_behind_each_other_are_the_runs_in_order():
    runs = [{"x": np.full((1, 2), i), "y": np.full((1, 3, 4), -i)} for i in range(5)]
    found = list(joined_runs(runs, 2))
    assert [count for count, _ in found] == [2, 2, 1]
    assert np.concatenate([tensors["x"] for _, tensors in found])[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert [tensors["y"].shape for _, tensors in found] == [(2, 3, 4), (2, 3, 4), (1, 3, 4)]


def test_runs_with_more_rows_or_other_shapes_stay_apart():
    rows = [{"x": np.zeros((1, 2)), "y": np.zeros((3, 2))}] * 3
    assert [(count, t["x"].shape) for count, t in joined_runs(rows)] == [(1, (1, 2))] * 3
    grown = [{"x": np.zeros((1, 2 + i))} for i in range(3)]
    assert [(count, t["x"].shape) for count, t in joined_runs(grown)] == [(1, (1, 2)), (1, (1, 3)), (1, (1, 4))]
    scalars = [{"x": np.zeros(())}] * 2
    assert [count for count, _ in joined_runs(scalars)] == [1, 1]
