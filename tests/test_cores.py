"""Shares of the cores."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from graphs import graph, random_weights
from threadpoolctl import threadpool_info, threadpool_limits

from onnx_tropnnc import compress
from onnx_tropnnc.running.cores import available_cores, sharing_cores, steady_arithmetic, usable_cores
from onnx_tropnnc.running.sessions import Runner

MODELS = Path(__file__).parents[1] / "models"


def test_all_cores_are_usable_by_a_job_alone() -> None:
    assert 1 <= usable_cores() == available_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("jobs", [0, 1, 2, 1000])
def test_jobs_at_once_share_the_cores(jobs: int) -> None:
    share = max(1, available_cores() // max(1, jobs))
    np.ones((2, 2)) @ np.ones((2, 2))  # BLAS is loaded
    with sharing_cores(jobs):
        assert usable_cores() == share
        assert all(pool["num_threads"] <= share for pool in threadpool_info() if pool["user_api"] == "blas")
    assert usable_cores() == available_cores()


def test_sessions_take_the_share() -> None:
    model = graph("y = Gemm(x, w)", random_weights(w=(4, 3)))
    with sharing_cores(available_cores()):
        assert Runner.load(model).session.get_session_options().intra_op_num_threads == 1
    assert Runner.load(model).session.get_session_options().intra_op_num_threads == available_cores()


def test_the_share_is_the_job_s_own() -> None:
    with sharing_cores(available_cores()), ThreadPoolExecutor(1) as other:
        assert other.submit(usable_cores).result() == available_cores()


def test_the_share_ends_with_an_error() -> None:
    with pytest.raises(ValueError, match="broken"), sharing_cores(1000):
        raise ValueError("broken")
    assert usable_cores() == available_cores()


def test_arithmetic_is_held_to_one_thread_and_given_back() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    before = [pool["num_threads"] for pool in threadpool_info()]
    with steady_arithmetic(), steady_arithmetic():
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    """The model's systems of 500 unknowns and more are those that BLAS cuts into pieces, one for each thread."""
    data = {"image": np.random.default_rng(0).standard_normal((64, 1, 28, 28)).astype(np.float32)}
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            result, _ = compress(MODELS / "mnist_deepcnn2d.onnx", ratio=0.3, data=data, verify=False)
            found.append(result.SerializeToString(deterministic=True))
    assert found[0] == found[1]
