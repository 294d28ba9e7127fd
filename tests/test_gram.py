"""Gram matrices and distances against the plain products in float64."""

import array_api_compat.numpy as numpy_namespace
import array_api_strict
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import squareform

from onnx_tropnnc.backend import to_numpy
from onnx_tropnnc.merging.gram import column_chunks, gram_matrix, squared_distances

NAMESPACES = [numpy_namespace, array_api_strict]


def blocks_of(rng: np.random.Generator, count: int, widths: tuple[int, ...], dtype: str = "float64"):
    return tuple(rng.standard_normal((count, width)).astype(dtype) for width in widths)


def direct_distances(vectors: np.ndarray) -> np.ndarray:
    difference = vectors[:, None, :] - vectors[None, :, :]
    return (difference**2).sum(axis=2)


@pytest.mark.parametrize("xp", NAMESPACES)
@pytest.mark.parametrize("chunk_bytes", [1, 200, 2**20])
def test_centred_and_uncentred_from_one_product(xp, chunk_bytes: int) -> None:
    blocks = blocks_of(np.random.default_rng(0), 7, (3, 1, 11))
    vectors = np.hstack(blocks) + 2.0
    gram = gram_matrix(tuple(block + 2.0 for block in blocks), xp, chunk_bytes=chunk_bytes)
    centred = vectors - vectors.mean(axis=0)
    assert gram.dimension == 15
    assert_allclose(to_numpy(gram.centred), centred @ centred.T, atol=1e-12)
    assert_allclose(to_numpy(gram.uncentred()), vectors @ vectors.T, rtol=1e-12)
    assert_allclose(to_numpy(gram.norms()), np.linalg.norm(vectors, axis=1), rtol=1e-12)


def test_gram_matrices_of_blocks_add_up() -> None:
    first, second = blocks_of(np.random.default_rng(1), 6, (4, 9))
    both, total = gram_matrix((first, second), numpy_namespace), gram_matrix((first,), numpy_namespace)
    total += gram_matrix((second,), numpy_namespace)
    assert total.dimension == both.dimension == 13
    assert_allclose(total.uncentred(), both.uncentred(), rtol=1e-12)
    assert_allclose(total.centred, both.centred, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16])
def test_low_precision_is_multiplied_as_float32_and_float32_stays(dtype) -> None:
    block = np.random.default_rng(2).standard_normal((9, 50)).astype(dtype)
    assert next(column_chunks((block,))).dtype == (np.float64 if dtype == "float64" else np.float32)
    gram = gram_matrix((block,), numpy_namespace)
    assert gram.centred.dtype == np.float64
    vectors = block.astype(np.float64)
    assert_allclose(gram.uncentred(), vectors @ vectors.T, rtol=1e-4, atol=1e-4)


def test_chunks_hold_every_column_once_and_stay_within_the_limit() -> None:
    blocks = blocks_of(np.random.default_rng(3), 5, (1, 8, 1, 13), "float32")
    chunks = list(column_chunks(blocks, 5 * 4 * 6))
    assert [chunk.shape[1] for chunk in chunks] == [5, 6, 6, 6]
    assert_array_equal(np.hstack(chunks), np.hstack(blocks))


def test_the_weights_are_left_alone() -> None:
    block = np.random.default_rng(4).standard_normal((5, 6)).astype(np.float32)
    before = block.copy()
    gram_matrix((block,), numpy_namespace)
    assert_array_equal(block, before)


@pytest.mark.parametrize("xp", NAMESPACES)
def test_distances(xp) -> None:
    blocks = blocks_of(np.random.default_rng(5), 8, (3, 4))
    distances = squareform(squared_distances(gram_matrix(blocks, xp), blocks))
    assert_allclose(distances, direct_distances(np.hstack(blocks)), atol=1e-12)
    assert_array_equal(np.diagonal(distances), np.zeros(8))


def test_a_common_offset_does_not_cost_digits() -> None:
    vectors = np.random.default_rng(6).standard_normal((10, 20)).astype(np.float32)
    moved = (vectors + np.float32(1000)).astype(np.float32)
    distances = squareform(squared_distances(gram_matrix((moved,), numpy_namespace), (moved,)))
    assert_allclose(distances, direct_distances(moved.astype(np.float64)), rtol=1e-4, atol=1e-9)


def test_near_pairs_come_from_the_rows() -> None:
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((6, 300)).astype(np.float32)
    vectors[3], vectors[4] = vectors[0], vectors[1] + np.float32(1e-5) * rng.standard_normal(300).astype(np.float32)
    distances = squareform(squared_distances(gram_matrix((vectors,), numpy_namespace), (vectors,)))
    exact = direct_distances(vectors.astype(np.float64))
    assert distances[0, 3] == distances[3, 0] == 0.0
    assert_allclose(distances[1, 4], exact[1, 4], rtol=1e-12)
    assert_allclose(distances, exact, rtol=1e-4)


@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 9))
def test_distances_of_any_size(count: int, width: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((count, width))
    distances = squareform(squared_distances(gram_matrix((vectors,), numpy_namespace), (vectors,)))
    assert_allclose(distances, direct_distances(vectors), atol=1e-10)
