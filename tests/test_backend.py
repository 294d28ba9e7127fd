"""The namespaces, and segment sums held equal between them."""

import subprocess
import sys
from importlib.util import find_spec

import array_api_compat.numpy
import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc.backend import array_module, segment_sum, to_numpy
from onnx_tropnnc.errors import OptionError

NAMESPACES = [array_api_compat.numpy, array_api_strict]


def test_cpu_is_numpy_through_array_api_compat() -> None:
    assert array_module("cpu") is array_api_compat.numpy


def test_unknown_device_is_refused() -> None:
    with pytest.raises(OptionError, match="device 'tpu' is unknown; choose auto, cpu or cuda"):
        array_module("tpu")


@pytest.mark.skipif(find_spec("cupy") is not None, reason="CuPy is installed")
def test_cuda_without_cupy_is_refused_and_auto_falls_to_the_cpu() -> None:
    assert array_module("auto") is array_api_compat.numpy
    with pytest.raises(OptionError, match=r"device cuda: CuPy is not installed; pip install 'cupy-cuda13x"):
        array_module("cuda")


def test_no_backend_is_imported_before_it_is_used() -> None:
    code = "import sys, onnx_tropnnc.merging.representatives; print({'cupy', 'torch', 'sklearn'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.gpu
def test_cuda_is_cupy_and_sums_as_numpy_does() -> None:
    xp = array_module("cuda")
    rng = np.random.default_rng(0)
    labels, values = rng.integers(-1, 40, 200), rng.standard_normal((200, 33))
    for array in (values, values[:, 0], values.astype(np.float32)):
        found = to_numpy(segment_sum(xp.asarray(array), labels, 41))
        assert_allclose(found, segment_sum(array, labels, 41), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("xp", NAMESPACES)
def test_segment_sum_of_the_docstring(xp) -> None:
    array = xp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    found = segment_sum(array, np.array([1, 0, 1]), 2)
    assert_array_equal(to_numpy(found), [[3.0, 4.0], [6.0, 8.0]])


@pytest.mark.parametrize("xp", NAMESPACES)
def test_rows_labelled_minus_one_are_left_out_and_unused_labels_give_zero(xp) -> None:
    found = segment_sum(xp.asarray([1.0, 2.0, 4.0, 8.0]), np.array([3, -1, 3, 0]), 5)
    assert_array_equal(to_numpy(found), [8.0, 0.0, 0.0, 5.0, 0.0])


@given(
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(0, 5),
    st.sampled_from(["float32", "float64"]),
    st.integers(0, 9),
)
def test_every_namespace_sums_alike(rows: int, count: int, width: int, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, count, rows)
    values = rng.standard_normal((rows, width) if width else rows).astype(dtype)
    expected = np.zeros((count, *values.shape[1:]))
    np.add.at(expected, labels[labels >= 0], values[labels >= 0])
    for xp in NAMESPACES:
        found = segment_sum(xp.asarray(values), labels, count)
        assert found.dtype == getattr(xp, dtype)
        assert_allclose(to_numpy(found), expected, rtol=1e-5, atol=1e-5)


def test_to_numpy_leaves_numpy_as_it_is() -> None:
    array = np.arange(3)
    assert to_numpy(array) is array
    assert_array_equal(to_numpy(array_api_strict.asarray([1, 2])), [1, 2])
