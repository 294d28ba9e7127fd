"""Values of attention: a basis of their own for each head, exact, in which the last features may go."""

import numpy as np
import onnx
import pytest
from graphs import assert_same_outputs, dims, graph, initializers, operators, random_weights, run
from test_narrow_fused_queries import OPERATORS as FUSED
from test_narrow_fused_queries import attention as fused
from test_narrow_queries import HEADS
from test_whole_heads import APART, ATTENTION, JOINT, SIZE, WORDS

import onnx_tropnnc
from onnx_tropnnc import Options, passes
from onnx_tropnnc.analysis.value_heads import value_products
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.chosen_rewrites import rotates_values
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.merging.merge_map import MergeMap, keep_channels


def attention(*, joint: bool = False, rank: int = SIZE, more: str = "") -> onnx.ModelProto:
    """Four heads of five features, of which the layer behind them reads combinations of the given number."""
    made = random_weights(4, wq=(8, 20), wk=(8, 20), wv=(8, 20), bq=(20,), wo=(20, 7), mask=(5, 5))
    for head in range(HEADS if rank < SIZE else 0):
        mixing = random_weights(head, m=(SIZE, rank))["m"]
        rows = slice(head * SIZE, (head + 1) * SIZE)
        made["wo"][rows] = mixing @ made["wo"][rows][:rank]
    sizes = {"split": np.array([0, 0, HEADS, SIZE]), "join": np.array([0, 0, 20]), "scale": np.float32(0.5)}
    if not joint:
        return graph(APART + ATTENTION + more, made | sizes, **WORDS)
    whole = np.concatenate([made.pop(name) for name in ("wq", "wk", "wv")], axis=1)
    bias = np.concatenate([made.pop("bq"), random_weights(5, b=(40,))["b"]])
    return graph(JOINT + ATTENTION + more, made | sizes | {"w": whole, "b": bias, "thirds": np.full(3, 20)}, **WORDS)


MODELS = {"apart": attention, "joint": lambda: attention(joint=True)} | {
    case: (lambda case=case: fused(case)) for case in FUSED
}


@pytest.mark.parametrize("case", MODELS)
def test_bases_change_no_output(case: str) -> None:
    model = MODELS[case]()
    loaded = load(model)
    (note,) = passes.RotateValues(samples_for(loaded, count=64))(loaded)
    assert str(note) == "the values of 1 of 1 attentions were written in bases of their own"
    after = to_proto(loaded)
    assert operators(after) == operators(model)
    changed = {n for n, array in initializers(after).items() if not np.array_equal(array, initializers(model)[n])}
    assert changed == {"wo", *({"w", "wv", "b"} & dims(model).keys())}
    assert_same_outputs(model, after, 1e-5)


@pytest.mark.parametrize("joint", [False, True])
def test_columns_and_rows_of_each_head_are_found(joint: bool) -> None:
    loaded = load(attention(joint=joint))
    (product,) = value_products(loaded, shapes_of(loaded))
    heads = np.arange(20).reshape(HEADS, SIZE)
    assert product.values.columns.tolist() == (heads + (40 if joint else 0)).tolist()
    assert product.reads.places.tolist() == heads.tolist()
    assert product.reads.axis == 0


def test_features_that_the_next_layer_does_not_read_go_first() -> None:
    model = attention(rank=3)
    result, report = onnx_tropnnc.compress(
        model, ratio=0.0, ratio_for=(("MatMul_3", 0.4),), round_to=1, reconstruct="off", method="select"
    )
    assert [(change.before, change.after) for change in report.of(Merged)] == [(5, 3)]
    assert (dims(result)["wv"], dims(result)["wo"]) == ((8, 12), (12, 7))
    assert_same_outputs(model, result, 1e-4)
    kept, _ = onnx_tropnnc.compress(
        model, ratio=0.0, ratio_for=(("MatMul_3", 0.4),), round_to=1, reconstruct="off", method="select", queries="keep"
    )
    assert dims(kept)["wv"] == (8, 12)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)}
    whole, off = run(model, feeds)[0], run(kept, feeds)[0]
    assert np.abs(whole - off).max() > 0.05 * np.abs(whole).max()


@pytest.mark.parametrize("reader", ["an output", "another layer", "a Softmax of the product"])
def test_values_with_another_reader_stay(reader: str) -> None:
    more = {"an output": "", "another layer": "z = MatMul(v1, wz) ", "a Softmax of the product": "z = Softmax(m)"}
    joint = reader == "another layer"
    model = attention(joint=joint, more=more[reader])
    if joint:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((20, 3), np.float32), "wz"))
    name, shape = {"an output": ("v2", ["N", 5, HEADS, SIZE]), "another layer": ("z", ["N", 5, 3])}.get(
        reader, ("z", ["N", HEADS, 5, SIZE])
    )
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, shape))
    loaded = load(model)
    assert list(value_products(loaded, shapes_of(loaded))) == []
    assert passes.RotateValues(samples_for(loaded, count=8))(loaded) == ()
    assert_same_outputs(model, to_proto(loaded), 0.0)


def test_plans_that_merge_keep_the_bases_in_which_they_merge() -> None:
    dropped = keep_channels(np.array([0, 2]), 3)
    merged = MergeMap(np.array([0, 1, 0]), np.array([0.5, 1, 0.5]), np.ones(3))
    assert rotates_values(Options(plan={"a": dropped}))
    assert not rotates_values(Options(plan={"a": dropped, "b": merged}))
    assert rotates_values(Options(ratio=0.5, heads="merge"))
    assert not rotates_values(Options(ratio=0.5, method="tropnnc"))
    assert not rotates_values(Options(lossless=True))
