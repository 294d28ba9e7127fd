"""Producers that are solved with their consumers, end to end on small graphs."""

import numpy as np
import pytest
from graphs import graph, initializers, random_weights
from reconstructing import HALF, RELU_NET, error, kept, reconstructed, refitted, samples

from onnx_tropnnc.changes import Reconstructed


def test_producers_are_solved_with_their_consumers() -> None:
    """Where channels are dropped, those that stay can move to where they serve better."""
    data = samples(2000)
    _, alone, _ = reconstructed(RELU_NET, HALF, data, refit=False)
    _, both, changes = reconstructed(RELU_NET, HALF, data)
    assert refitted(changes) == ["Gemm_0"]
    (change,) = (change for change in changes if isinstance(change, Reconstructed))
    assert change.error_after is not None
    assert error(RELU_NET, both, data) < 0.8 * error(RELU_NET, alone, data)
    assert error(RELU_NET, both, data) == pytest.approx(change.error_after, rel=0.25)


def test_a_bias_behind_the_producer_moves_with_it() -> None:
    weights = random_weights(w1=(4, 8), b1=(8,), w2=(8, 3))
    model = graph("a = MatMul(x, w1) c = Add(a, b1) b = Relu(c)  y = MatMul(b, w2)", weights)
    merges, data = {"MatMul_0": kept(8, 0, 1, 2, 3, 4)}, samples(2000)
    plain, both, changes = reconstructed(model, merges, data)
    (change,) = (change for change in changes if isinstance(change, Reconstructed))
    assert change.refitted == "MatMul_0"
    assert change.error_after is not None
    assert error(model, both, data) == pytest.approx(change.error_after, rel=0.25)
    assert np.any(initializers(both)["b1"] != initializers(plain)["b1"])


def test_producers_behind_which_gelu_is_written_as_several_nodes_move_too() -> None:
    weights = random_weights(w1=(4, 8), b1=(8,), w2=(8, 3))
    weights |= {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    gelu = "d = Div(c, root) e = Erf(d) f = Add(e, one) g = Mul(c, f) h = Mul(g, half)"
    model = graph(f"a = MatMul(x, w1) c = Add(a, b1) {gelu} y = MatMul(h, w2)", weights)
    merges, data = {"MatMul_0": kept(8, 0, 1, 2, 3, 4)}, samples(2000)
    _, alone, _ = reconstructed(model, merges, data, refit=False)
    _, both, changes = reconstructed(model, merges, data)
    assert refitted(changes) == ["MatMul_0"]
    assert error(model, both, data) < 0.8 * error(model, alone, data)


def test_few_samples_move_no_producers() -> None:
    assert refitted(reconstructed(RELU_NET, HALF, samples(4))[2]) == [None]
