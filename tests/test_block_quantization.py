"""MatMulNBits: computed to be compressed, and stored in blocks again."""

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from graphs import (
    CONTRIB,
    assert_same_outputs,
    dims,
    feeds_for,
    graph,
    initializers,
    operators,
    run,
    twice,
)

import onnx_tropnnc
from onnx_tropnnc.graph.block_quantization import is_block_quantized
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of

BLOCK = 16


def packed(rows: np.ndarray, bits: int) -> np.ndarray:
    if bits == 8:
        return rows
    even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    return (even[:, ::2] | (even[:, 1::2] << 4)).astype(np.uint8)


def blocks_of(seed: int, rows: int, columns: int, bits: int, *, zeros: bool, copies: bool) -> dict[str, np.ndarray]:
    """Return B, scales and zero points; every column twice where `copies`."""
    rng, count = np.random.default_rng(seed), -(-rows // BLOCK)
    single = columns // 2 if copies else columns
    integers = rng.integers(0, 2**bits, (single, count * BLOCK)).astype(np.uint8)
    steps = (rng.random((single, count)) * 2 ** (3 - bits) + 0.01).astype(np.float32)
    points = rng.integers(0, 2**bits, (single, count)).astype(np.uint8)
    if copies:
        integers, steps, points = twice(integers), twice(steps), twice(points)
    found = {
        "b": packed(integers.reshape(-1, BLOCK), bits).reshape(columns, count, -1),
        "s": steps.reshape(-1),
    }
    return found | ({"z": packed(points, bits).reshape(-1)} if zeros else {})


def model_of(bits: int, *, zeros: bool, copies: bool = False, rows: int = 32, columns: int = 48) -> onnx.ModelProto:
    def product(x: str, name: str, k: int, n: int) -> str:
        sizes = f"K = {k}, N = {n}, bits = {bits}, block_size = {BLOCK}"
        given = f"{name}b, {name}s" + (f", {name}z" if zeros else "")
        return f"{CONTRIB}.MatMulNBits <{sizes}> ({x}, {given})"

    first = blocks_of(0, rows, columns, bits, zeros=zeros, copies=copies)
    second = blocks_of(1, columns, 8, bits, zeros=zeros, copies=False)
    weights = {f"p{n}": a for n, a in first.items()} | {f"q{n}": a for n, a in second.items()}
    body = f"c = {product('x', 'p', rows, columns)} r = Relu(c) y = {product('r', 'q', columns, 8)}"
    return graph(body, weights, inputs=f"float[N, {rows}] x", outputs="float[N, 8] y")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", [False, True])
def test_columns_that_stay_keep_their_integers(bits: int, zeros: bool) -> None:
    model = model_of(bits, zeros=zeros)
    assert all(is_block_quantized(node) for node in load(model).graph if node.op_type == "MatMulNBits")
    same, _ = onnx_tropnnc.compress(model, ratio=0.0)
    assert operators(same) == operators(model)
    assert initializers(same).keys() == initializers(model).keys()
    assert_same_outputs(model, same, 0.0)
    result, report = onnx_tropnnc.compress(model, ratio=0.5, round_to=1, method="l1", reconstruct="off")
    assert operators(result) == ["MatMulNBits", "Relu", "MatMulNBits"]
    assert dims(result)["pb"] == (24, 2, BLOCK * bits // 8)
    assert dims(result)["qb"] == (8, 2, BLOCK * bits // 8)
    kept = {column.tobytes() for column in initializers(model)["pb"]}
    assert {column.tobytes() for column in initializers(result)["pb"]} <= kept
    assert report.after.parameters < report.before.parameters
    run(result, feeds_for(model))


@pytest.mark.parametrize("zeros", [False, True])
def test_solved_weights_are_rounded(zeros: bool) -> None:
    model = model_of(8, zeros=zeros, copies=True)
    result, _ = onnx_tropnnc.compress(model, ratio=0.5, round_to=1)
    feeds = feeds_for(model, batch=64)
    wanted, found = run(model, feeds)[0], run(result, feeds)[0]
    # every column stands twice, so that only rounding to 8 bits is lost
    assert np.linalg.norm(found - wanted) < 0.02 * np.linalg.norm(wanted)


def test_other_forms_stay() -> None:
    model = model_of(4, zeros=False)
    model.graph.node[0].attribute[2].i = 3
    assert not is_block_quantized(load(model).graph[0])


def test_budgets_count_what_is_packed() -> None:
    model = model_of(4, zeros=True)
    loaded = load(model)
    size = size_of(loaded, shapes_of(loaded))
    assert (size.parameters, size.macs) == (32 * 48 + 48 * 8 + 48 * 2 + 8 * 3, 32 * 48 + 48 * 8)
    for budget in ({"target_params": 0.6}, {"target_macs": 0.6}):
        result, report = onnx_tropnnc.compress(model, round_to=1, **budget)
        assert report.after.macs is not None
        assert report.after.macs <= 0.65 * (32 * 48 + 48 * 8)
        run(result, feeds_for(model))


def test_a_bias_becomes_an_addition() -> None:
    model = model_of(4, zeros=False, copies=True)
    bias = twice(np.random.default_rng(2).standard_normal(24).astype(np.float32))
    model.graph.initializer.append(onnx.numpy_helper.from_array(bias, "k"))
    model.graph.node[0].input.extend(["", "", "k"])
    result, _ = onnx_tropnnc.compress(model, ratio=0.5, method="l1", round_to=1, reconstruct="off")
    assert operators(result) == ["MatMulNBits", "Add", "Relu", "MatMulNBits"]
    assert dims(result)["k"] == (24,)
    run(result, feeds_for(model))
