"""Constants that stand in for residual blocks become part of the bias before them, and no node is left."""

import numpy as np
import onnx
import pytest
from graphs import assert_same_outputs, graph, groups_of, initializers, operators, random_weights

from onnx_tropnnc import compress, passes
from onnx_tropnnc.analysis.residual_blocks import residual_blocks
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.merging.merge_map import keep_channels
from onnx_tropnnc.rewriting.block_removal import remove_block

PICTURES = {"inputs": "float[N, 3, 8, 8] x", "outputs": "float[N, 8, 8, 8] y"}
FIRST = {
    "bias": ("s = Conv(x, w, b)", {"w": (8, 3, 1, 1), "b": (8,)}),
    "no bias": ("s = Conv(x, w)", {"w": (8, 3, 1, 1)}),
    "behind a sum": (
        "o = Conv(x, w, b) q = Relu(o) p = Conv(q, u, e) s = Add(q, p)",
        {"w": (8, 3, 1, 1), "b": (8,), "u": (8, 8, 1, 1), "e": (8,)},
    ),
    "constant": ("o = Relu(x) p = Conv(o, w) q = Relu(p) s = Add(q, k)", {"w": (8, 3, 1, 1), "k": (8, 1, 1)}),
    "transposed": ("s = ConvTranspose(x, w, b)", {"w": (3, 8, 1, 1), "b": (8,)}),
}
"""Streams of 8 channels, and the constants that make them."""

BLOCK = "h{0} = Conv({1}, a{0}) r{0} = Relu(h{0}) f{0} = Conv(r{0}, c{0}, d{0}) t{0} = Add({1}, f{0})"
SHAPES = {"a": (6, 8, 1, 1), "c": (8, 6, 1, 1), "d": (8,)}


def network(first: str, tail: str, blocks: int = 1, *, made: str = "s") -> onnx.ModelProto:
    """Return a stream, residual blocks behind it and what reads the last sum, which `tail` calls `t`."""
    text, shapes = FIRST[first]
    for number in range(blocks):
        text += f" {BLOCK.format(number, made)}"
        shapes = shapes | {f"{name}{number}": dims for name, dims in SHAPES.items()}
        made = f"t{number}"
    return graph(f"{text} {tail.replace('t', made)}", random_weights(**shapes), **PICTURES)


def without_blocks(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return the model with constants instead of its blocks, and the same folded."""
    loaded, rng = load(model), np.random.default_rng(1)
    while blocks := [
        b for b in residual_blocks(loaded.graph, shapes_of(loaded)) if b.total.outputs[0].name.startswith("t")
    ]:
        remove_block(loaded, shapes_of(loaded), blocks[0], rng.standard_normal(8))
    plain = to_proto(loaded)
    assert passes.FoldStandIns()(loaded) == ()
    return plain, to_proto(loaded)


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_constant_becomes_part_of_the_bias_before_it(first: str, blocks: int) -> None:
    plain, folded = without_blocks(network(first, "y = Relu(t)", blocks))
    assert len(folded.graph.node) == len(plain.graph.node) - blocks
    assert sum(a.size for a in initializers(folded).values()) <= sum(a.size for a in initializers(plain).values())
    assert_same_outputs(plain, folded, 1e-6)
    onnx.checker.check_model(folded, full_check=True)


def test_a_sum_that_is_an_output_keeps_its_name() -> None:
    model = network("bias", "z = Relu(t)", 1)
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("t0", onnx.TensorProto.FLOAT, ["N", 8, 8, 8]))
    del model.graph.node[-1:]
    plain, folded = without_blocks(model)
    assert operators(plain) == ["Conv", "Add"]
    assert operators(folded) == ["Conv"]
    assert [value.name for value in folded.graph.output] == ["t0"]
    assert_same_outputs(plain, folded, 1e-6)
    onnx.checker.check_model(folded, full_check=True)


@pytest.mark.parametrize(
    ("first", "tail"),
    [
        ("o = Conv(x, w, b) s = Relu(o)", "y = Relu(t)"),
        ("s = Conv(x, w, b)", "n = Relu(s) y = Add(n, t)"),
    ],
    ids=["behind an activation", "read elsewhere"],
)
def test_where_it_cannot_be_folded_the_constant_stays(first: str, tail: str) -> None:
    text = f"{first} {BLOCK.format(0, 's')} {tail.replace('t', 't0')}"
    shapes = {"w": (8, 3, 1, 1), "b": (8,)} | {f"{name}0": dims for name, dims in SHAPES.items()}
    plain, folded = without_blocks(graph(text, random_weights(**shapes), **PICTURES))
    assert operators(plain) == operators(folded)
    assert_same_outputs(plain, folded, 0)


def test_sums_of_the_model_itself_stay() -> None:
    model = graph("s = Conv(x, w, b) y = Add(s, k)", random_weights(w=(8, 3, 1, 1), b=(8,), k=(8, 1, 1)), **PICTURES)
    loaded = load(model)
    passes.FoldStandIns()(loaded)
    assert operators(to_proto(loaded)) == ["Conv", "Add"]


def test_a_bias_that_others_read_is_not_changed_for_them() -> None:
    text = f"s = Conv(x, w, b) {BLOCK.format(0, 's')} o = Conv(x, u, b) p = Relu(t0) q = Relu(o) y = Add(p, q)"
    shapes = {"w": (8, 3, 1, 1), "u": (8, 3, 1, 1), "b": (8,)} | {f"{name}0": dims for name, dims in SHAPES.items()}
    plain, folded = without_blocks(graph(text, random_weights(**shapes), **PICTURES))
    assert len(folded.graph.node) == len(plain.graph.node) - 1
    assert_same_outputs(plain, folded, 1e-6)


def test_a_result_has_no_node_where_a_block_went() -> None:
    model = network("bias", "y = Relu(t)", 3)
    middle = [group.name for group in groups_of(model).values() if group.channels == 6][1]
    result, report = compress(model, plan={middle: keep_channels(np.array([], np.int64), 6)})
    assert [change.after for change in report.of(Merged)] == [0]
    assert report.passed
    assert operators(result).count("Add") == 2
