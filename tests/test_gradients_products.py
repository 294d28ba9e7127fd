"""Gradients of products and convolutions, against finite differences."""

import numpy as np
import pytest
from finite_differences import LINEAR, PICTURE, ROWS, assert_gradients, listed
from graphs import graph, random_weights


@pytest.mark.parametrize("turned_a", [0, 1])
@pytest.mark.parametrize("turned_b", [0, 1])
def test_gemm(turned_a: int, turned_b: int) -> None:
    weights = random_weights(w=(3, 5 if turned_a else 6) if turned_b else (5 if turned_a else 6, 3), c=(3,))
    body = f"y = Gemm <alpha = 0.7, beta = 1.3, transA = {turned_a}, transB = {turned_b}> (x, w, c)"
    assert_gradients(graph(body, weights, **ROWS))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((5, 6), (6, 3)),
        ((2, 4, 5, 6), (6, 3)),
        ((2, 1, 5, 6), (4, 6, 3)),
        ((6,), (6, 3)),
        ((5, 6), (6,)),
        ((3, 5, 6), (6,)),
        ((6,), (2, 6, 3)),
    ],
)
def test_matmul(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    dims = ", ".join(str(size) for size in left)
    model = graph("y = MatMul(x, w)", random_weights(w=right), inputs=f"float[{dims}] x", outputs="float y")
    assert_gradients(model)


@pytest.mark.parametrize("seed", range(24))
def test_convolutions_of_any_attributes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = int(rng.choice([1, 1, 2, 4]))
    outputs = group * int(rng.integers(1, 4)) if group < 4 or seed % 2 else 4
    kernel, strides, dilations = (rng.integers(1, high, 2) for high in (6, 4, 3))
    pads = rng.integers(0, 3, 4)
    pads = np.minimum(pads, np.tile((kernel - 1) * dilations, 2))
    attributes = f"strides = {listed(strides)}, dilations = {listed(dilations)}, pads = {listed(pads)}, group = {group}"
    weights = random_weights(seed, w=(outputs, 4 // group, *(int(k) for k in kernel)), b=(outputs,))
    assert_gradients(
        graph(f"y = Conv <{attributes}> (x, w, b)", weights, **PICTURE | {"inputs": "float[3, 4, 12, 11] x"}), seed=seed
    )


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_automatic_padding(mode: str, operator: str) -> None:
    weights = random_weights(w=(4, 4, 3, 2))
    assert_gradients(graph(f'y = {operator} <auto_pad = "{mode}", strides = [2, 2]> (x, w)', weights, **PICTURE))


@pytest.mark.parametrize("channels", [4, 12])
def test_wide_and_narrow_convolutions_are_written_differently(channels: int) -> None:
    for size in (1, 9):
        weights = random_weights(w=(6, channels, 3, 3), b=(6,))
        picture = {"inputs": f"float[3, {channels}, {size}, {size}] x", "outputs": "float y"}
        assert_gradients(graph("y = Conv <pads = [1, 1, 1, 1]> (x, w, b)", weights, **picture))


@pytest.mark.parametrize(("rank", "dims"), [(1, "11"), (3, "5, 4, 6")])
def test_convolutions_in_one_and_three_dimensions(rank: int, dims: str) -> None:
    kernel = (3,) * rank
    weights = random_weights(w=(9, 8, *kernel), b=(9,), u=(9, 2, *kernel))
    pads = ", ".join(["1"] * rank * 2)
    body = f"c = Conv <pads = [{pads}]> (x, w, b) y = ConvTranspose <group = 3> (c, u)"
    assert_gradients(graph(body, weights, inputs=f"float[2, 8, {dims}] x", outputs="float y"), narrow=True, step=LINEAR)


@pytest.mark.parametrize("size", ["5, 7", "12, 11"])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 4)])
def test_depthwise_convolutions(kernel: tuple[int, int], stride: int, dilation: int, size: str) -> None:
    """Small ones are written as products of rows, those with fewer samples than columns position by position."""
    weights = random_weights(w=(6, 1, *kernel), b=(6,))
    pads = [(kernel[0] - 1) * dilation, 1, 1, (kernel[1] - 1) * dilation]
    attributes = f"strides = [{stride}, {stride}], dilations = [{dilation}, {dilation}], pads = {pads}, group = 6"
    for samples in (1, 4):
        picture = {"inputs": f"float[{samples}, 6, {size}] x", "outputs": "float y"}
        assert_gradients(graph(f"y = Conv <{attributes}> (x, w, b)", weights, **picture))


@pytest.mark.parametrize("wide", [3, 200])
def test_depthwise_convolutions_of_wide_rows_and_of_one_dimension(wide: int) -> None:
    for body, dims, kernel in (
        ("y = Conv <group = 2, strides = [1, 2], pads = [1, 1, 1, 1]> (x, w)", f"8, {wide}", (3, 3)),
        ("y = Conv <group = 2, strides = [2], pads = [1, 1]> (x, w)", f"{wide}", (3,)),
    ):
        picture = {"inputs": f"float[40, 2, {dims}] x", "outputs": "float y"}
        assert_gradients(graph(body, random_weights(w=(2, 1, *kernel)), **picture))


@pytest.mark.parametrize("seed", range(12))
def test_transposed_convolutions_of_any_attributes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = int(rng.choice([1, 2, 4]))
    kernel, strides, dilations = rng.integers(1, 5, 2), rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    pads = np.minimum(rng.integers(0, 2, 4), np.tile((kernel - 1) * dilations, 2))
    extra = rng.integers(0, strides, 2)
    attributes = f"strides = {listed(strides)}, dilations = {listed(dilations)}, pads = {listed(pads)}, group = {group}"
    attributes += f", output_padding = {listed(extra)}"
    weights = random_weights(seed, w=(4, 3, *(int(k) for k in kernel)), b=(3 * group,))
    assert_gradients(
        graph(f"y = ConvTranspose <{attributes}> (x, w, b)", weights, **PICTURE | {"inputs": "float[2, 4, 6, 5] x"}),
        seed=seed,
        narrow=True,
        step=LINEAR,
    )
