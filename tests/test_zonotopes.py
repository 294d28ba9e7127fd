"""Zonotopes in the plane: the paper's Examples 2, 3 and 5, the laws of both distances, and the pictures."""

import sys
from math import isclose, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial import ConvexHull

from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.zonotopes import (
    discrete_hausdorff,
    distances,
    hausdorff,
    plot_zonotopes,
    upper_envelope,
    vertices,
)

laws = settings(derandomize=True, deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)

PAIR = np.array([[1.0, 0.0], [0.5, sqrt(3) / 2]])
"""The generators of P in Examples 2 and 3."""


def subset_sums(generators: np.ndarray) -> np.ndarray:
    n = len(generators)
    return np.array([[i >> bit & 1 for bit in range(n)] for i in range(2**n)]) @ generators


def test_example_2_the_mean_of_two_generators():
    mean = PAIR.mean(axis=0)
    assert_allclose(mean, [3 / 4, sqrt(3) / 4], atol=1e-15)
    original, merged = vertices(PAIR), vertices([mean])
    assert isclose(discrete_hausdorff(original, merged), sqrt(3) / 2)
    assert isclose(hausdorff(original, merged), sqrt(3) / 2)
    assert isclose(distances(merged, original).max(), 0.0, abs_tol=1e-15)


def test_example_3_the_sum_of_two_generators():
    total = PAIR.sum(axis=0)
    assert_allclose(total, [3 / 2, sqrt(3) / 2], atol=1e-15)
    original, merged = vertices(PAIR), vertices([total])
    assert isclose(discrete_hausdorff(original, merged), 1.0)
    assert isclose(hausdorff(original, merged), 0.5)


def test_example_5_two_outputs_share_one_direction():
    rows, outgoing = np.eye(2), np.array([[3.0, 5.0], [4.0, 2.0]])
    merge = MergeMap.mean_in_sum_out(np.zeros(2, dtype=np.int64))
    direction, weights = merge.alpha @ rows, outgoing @ merge.gamma
    assert direction.tolist() == [0.5, 0.5]
    assert weights.tolist() == [8.0, 6.0]
    originals = [vertices(output[:, None] * rows) for output in outgoing]
    assert originals[0].tolist() == [[0, 0], [3, 0], [3, 5], [0, 5]]
    assert originals[1].tolist() == [[0, 0], [4, 0], [4, 2], [0, 2]]
    merged = [vertices([weight * direction]) for weight in weights]
    assert [polygon.tolist() for polygon in merged] == [[[0, 0], [4, 4]], [[0, 0], [3, 3]]]
    # (3, 0) and (0, 5) against the segment to (4, 4); (4, 0) and (4, 2) against that to (3, 3)
    assert isclose(hausdorff(originals[0], merged[0]), 5 / sqrt(2))
    assert isclose(hausdorff(originals[1], merged[1]), 4 / sqrt(2))


@laws
@given(seed=seeds, count=st.integers(0, 7))
def test_vertices_are_the_hull_of_all_sums_of_generators(seed, count):
    rng = np.random.default_rng(seed)
    generators, start = rng.normal(size=(count, 2)), rng.normal(size=2)
    corners = vertices(generators, start)
    sums = start + subset_sums(generators)
    assert len(corners) == max(1, 2 * count)
    if count >= 2:
        hull = ConvexHull(sums)
        assert len(hull.vertices) == len(corners)
        assert isclose(hausdorff(corners, sums[hull.vertices]), 0.0, abs_tol=1e-9)
        ahead = np.roll(corners, -1, axis=0) - corners
        after = np.roll(ahead, -1, axis=0)
        assert (ahead[:, 0] * after[:, 1] - ahead[:, 1] * after[:, 0] > 0).all()
    assert corners[0].tolist() == min(corners.tolist(), key=lambda corner: (corner[1], corner[0]))
    assert distances(sums, corners).max() < 1e-9


def test_zero_and_parallel_generators_make_no_vertices():
    assert vertices(np.empty((0, 2)), (1.0, 2.0)).tolist() == [[1.0, 2.0]]
    assert vertices([[0.0, 0.0]]).tolist() == [[0.0, 0.0]]
    assert vertices([[1.0, 1.0], [-2.0, -2.0]]).tolist() == [[-2.0, -2.0], [1.0, 1.0]]
    assert vertices([[0.0, 5.0], [1.0, 0.0], [-2.0, 0.0], [0.0, 0.0]]).tolist() == [[-2, 0], [1, 0], [1, 5], [-2, 5]]


def test_generators_outside_the_plane_are_refused():
    with pytest.raises(OptionError, match=r"shape \(n, 2\), not \(1, 3\)"):
        vertices([[1.0, 2.0, 3.0]])


@laws
@given(seed=seeds, first=st.integers(0, 6), second=st.integers(0, 6))
def test_both_distances_are_metrics_and_the_continuous_one_is_never_larger(seed, first, second):
    rng = np.random.default_rng(seed)
    one, two, three = (vertices(rng.normal(size=(count, 2)), rng.normal(size=2)) for count in (first, second, 3))
    for distance in (hausdorff, discrete_hausdorff):
        assert isclose(distance(one, one), 0.0, abs_tol=1e-12)
        assert distance(one, two) == distance(two, one) > 0
        assert distance(one, three) <= distance(one, two) + distance(two, three) + 1e-12
        assert isclose(distance(one + 5, two + 5), distance(one, two), rel_tol=1e-9)
    assert hausdorff(one, two) <= discrete_hausdorff(one, two) + 1e-12


@laws
@given(seed=seeds, count=st.integers(2, 6))
def test_the_hausdorff_distance_is_the_largest_difference_of_support_functions(seed, count):
    rng = np.random.default_rng(seed)
    one, two = vertices(rng.normal(size=(count, 2))), vertices(rng.normal(size=(3, 2)))
    angles = np.linspace(0, 2 * np.pi, 20_000)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    difference = np.abs((one @ directions).max(axis=0) - (two @ directions).max(axis=0)).max()
    assert_allclose(hausdorff(one, two), difference, rtol=1e-3)


def test_distance_to_a_polygon_is_zero_inside_and_to_the_nearest_edge_outside():
    square = [[0, 0], [2, 0], [2, 2], [0, 2]]
    at = [[1, 1], [2, 1], [3, 1], [3, 3], [1, -0.5]]
    assert_allclose(distances(at, square), [0, 0, 1, sqrt(2), 0.5])
    assert_allclose(distances([[1, 1]], [[0, 0], [2, 0]]), [1.0])
    assert_allclose(distances([[3, 4]], [[0, 0]]), [5.0])


@laws
@given(seed=seeds, count=st.integers(0, 6))
def test_the_upper_envelope_alone_is_the_tropical_polynomial(seed, count):
    rng = np.random.default_rng(seed)
    corners = vertices(rng.normal(size=(count, 2)))
    hull = upper_envelope(corners)
    lifted = np.stack([rng.uniform(-5, 5, size=200), np.ones(200)])
    assert_allclose((hull @ lifted).max(axis=0), (corners @ lifted).max(axis=0), atol=1e-12)
    assert (np.diff(hull[:, 0]) > 0).all()
    assert len(hull) == max(1, count + 1)


def test_the_upper_envelope_of_vertical_and_level_edges():
    assert upper_envelope([[0, 0], [3, 0], [3, 5], [0, 5]]).tolist() == [[0, 5], [3, 5]]
    assert upper_envelope([[0, 0], [0, 5]]).tolist() == [[0, 5]]
    assert upper_envelope([[1, 2]]).tolist() == [[1, 2]]


def test_a_picture_has_an_outline_a_name_and_arrows_for_each_zonotope(tmp_path):
    pytest.importorskip("matplotlib")
    axes = plot_zonotopes({"P": PAIR, "sum": [PAIR.sum(axis=0)]})
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["P", "sum"]
    assert [len(line.get_xdata()) for line in axes.get_lines()] == [5, 3]
    assert_allclose(axes.get_lines()[0].get_xydata()[:-1], vertices(PAIR))
    assert len(axes.texts) == 3
    picture = tmp_path / "zonotopes.png"
    axes.figure.savefig(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert plot_zonotopes({"Q": PAIR}, axes) is axes
    assert len(axes.get_lines()) == 3


def test_without_matplotlib_a_picture_is_refused_with_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OptionError, match=r"pip install matplotlib$"):
        plot_zonotopes({"P": PAIR})
