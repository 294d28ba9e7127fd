"""Which layers are solved, in which order, what for, and who takes residual errors back."""

import numpy as np
import onnx
from graphs import graph, random_weights

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.rewriting.workspace import Workspace
from onnx_tropnnc.solving.consumers import COMPRESSED, REFERENCE, Consumer, Passed, find_consumers

HALVES = MergeMap.mean_in_sum_out(np.array([0, 0, 1, 1]))
SQUARE = random_weights(**{f"w{i}": (4, 4) for i in range(6)})


IO = {"inputs": "float[N, 4] x", "outputs": "float[N, 4] y"}


def square(body: str, **options: str) -> onnx.ModelProto:
    used = {name: array for name, array in SQUARE.items() if name in body}
    return graph(
        body, used, outputs=options.get("outputs", "float[N, 4] y"), inputs=options.get("inputs", "float[N, 4] x")
    )


def consumers_of(model: onnx.ModelProto, *groups: str) -> tuple[Consumer | Passed, ...]:
    """With the groups halved; "" for all."""
    reference = load(model)
    shapes = shapes_of(reference)
    found = find_channel_groups(reference, shapes)
    merges = {group.name: HALVES for group in found if group.name in groups}
    assert set(merges) == set(groups)
    compressed = reference.clone()
    workspace = Workspace(compressed)
    for group in find_channel_groups(compressed, shapes):
        if group.name in merges:
            workspace.apply(group, merges[group.name])
    return find_consumers(reference, compressed, found, merges, shapes)


def test_only_readers_of_merged_groups_in_order() -> None:
    body = """a = MatMul(x, w0)  b = Relu(a)  c = MatMul(b, w1)  d = Relu(c)
              e = MatMul(d, w2)  f = Relu(e)  y = MatMul(f, w3)"""
    found = consumers_of(square(body), "MatMul_0", "MatMul_2")
    assert [c.name for c in found if isinstance(c, Consumer)] == ["MatMul_2", "MatMul_4"]
    first, second = (c for c in found if isinstance(c, Consumer))
    assert first.row_map is not None
    np.testing.assert_array_equal(first.row_map.toarray(), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    assert second.row_map is None
    assert first.layer.matrix().shape == (1, 2, 2)
    assert first.original.matrix().shape == (1, 4, 4)
    assert first.stop.wanted == {REFERENCE: ("c",), COMPRESSED: ("b",)}


def test_layers_behind_the_readers_are_solved_too_where_they_become_no_larger() -> None:
    """d, with a bias, reads what the reader of the merged group made; s reads the input, and y has no bias."""
    body = """a = MatMul(x, w0)  b = Relu(a)  c = MatMul(b, w1)  r = Add(c, x)
              d = Gemm(r, w2, k)  s = Gemm(x, w3, k)  e = Add(d, s)  y = MatMul(e, w4)"""
    model = graph(body, {**{f"w{i}": SQUARE[f"w{i}"] for i in range(5)}, "k": np.ones(4, np.float32)}, **IO)
    reader, behind = consumers_of(model, "MatMul_0")
    assert isinstance(reader, Consumer)
    assert isinstance(behind, Consumer)
    assert (reader.name, behind.name) == ("MatMul_2", "Gemm_4")
    assert behind.pair is None
    assert [p.value.name for p in behind.partners] == ["s"]


def test_the_layer_before_an_add_takes_the_other_branch_s_error_back() -> None:
    body = "a = MatMul(x, w0)  b = Relu(a)  c = MatMul(b, w1)  r = Add(c, x)  y = Relu(r)"
    (found,) = consumers_of(square(body), "MatMul_0")
    assert isinstance(found, Consumer)
    assert [(p.value.name, p.coefficient) for p in found.partners] == [("x", 1.0)]
    assert found.stop.wanted == {REFERENCE: ("c", "x"), COMPRESSED: ("b", "x")}


def test_of_two_branches_the_one_solved_last_takes_it_back() -> None:
    body = """a = MatMul(x, w0)  b = Relu(a)  c = MatMul(b, w1)
              d = MatMul(x, w2)  e = Relu(d)  f = MatMul(e, w3)  r = Add(c, f)  y = Relu(r)"""
    first, second = consumers_of(square(body), "MatMul_0", "MatMul_3")
    assert isinstance(first, Consumer)
    assert isinstance(second, Consumer)
    assert (first.name, second.name) == ("MatMul_2", "MatMul_5")
    assert first.partners == ()
    assert [p.value.name for p in second.partners] == ["c"]


def test_a_shortcut_that_stands_later_in_the_file_is_known_if_nothing_unsolved_goes_into_it() -> None:
    body = "a = MatMul(x, w0)  b = Relu(a)  c = MatMul(b, w1)  s = MatMul(x, w2)  y = Add(c, s)"
    (found,) = consumers_of(square(body), "MatMul_0")
    assert isinstance(found, Consumer)
    assert [p.value.name for p in found.partners] == ["s"]


def test_an_add_that_widens_the_output_is_not_followed() -> None:
    body = "a = MatMul(x, w0)  b = Relu(a)  c = MatMul(b, w1)  y = Add(c, z)"
    model = square(body, inputs="float[N, 4] x, float[3, N, 4] z", outputs="float[3, N, 4] y")
    (found,) = consumers_of(model, "MatMul_0")
    assert isinstance(found, Consumer)
    assert found.partners == ()


def test_a_layer_that_cannot_be_solved_passes_with_its_reason() -> None:
    body = "a = MatMul(x, w0)  b = Relu(a)  y = Gemm <alpha = 0.0> (b, w1)"
    found = consumers_of(square(body), "MatMul_0")
    assert found == (Passed("Gemm_2", "its alpha is 0"),)


def test_without_merges_there_is_nothing_to_solve() -> None:
    assert consumers_of(square("a = MatMul(x, w0)  b = Relu(a)  y = MatMul(b, w1)")) == ()
