"""Residual blocks that go as a whole: which can, what stands in for them, and that the rest is solved for that."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights, run
from numpy.testing import assert_allclose

from onnx_tropnnc import compress
from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.analysis.residual_blocks import residual_blocks
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.deciding.plans import load_plan, plan_text
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.merging.merge_map import keep_channels
from onnx_tropnnc.passes.merge_channels import MergeChannels
from onnx_tropnnc.report import Report
from onnx_tropnnc.rewriting.block_removal import emptied_blocks, without_block

NONE_OF_6 = keep_channels(np.array([], np.int64), 6)


def stream(blocks: int, *, useless: int = -1) -> onnx.ModelProto:
    """Return x -> 8 features, which `blocks` blocks of 6 channels add to; what one of them adds hardly varies."""
    text, weights, name = "s0 = Gemm(x, w, b)", {"w": (4, 8), "b": (8,), "v": (8, 3)}, "s0"
    for number in range(blocks):
        text += f" h{number} = Gemm({name}, a{number}, k{number}) r{number} = Relu(h{number})"
        text += f" f{number} = Gemm(r{number}, c{number}, d{number}) s{number + 1} = Add({name}, f{number})"
        weights |= {f"a{number}": (8, 6), f"k{number}": (6,), f"c{number}": (6, 8), f"d{number}": (8,)}
        name = f"s{number + 1}"
    arrays = random_weights(**weights)
    if useless >= 0:
        arrays[f"c{useless}"] = arrays[f"c{useless}"] * np.float32(1e-3)
    return graph(f"{text} y = Gemm({name}, v)", arrays)


def names(model: onnx.ModelProto) -> list[str]:
    loaded = load(model)
    return [block.name for block in residual_blocks(loaded.graph, shapes_of(loaded))]


def test_a_block_is_what_serves_one_sum_and_is_computed_from_its_other_side() -> None:
    assert len(names(stream(2))) == 2


@pytest.mark.parametrize(
    "text",
    [
        "s = Gemm(x, w, b) f = Gemm(x, a) t = Add(s, f) y = Gemm(t, v)",
        "s = Gemm(x, w, b) h = Gemm(s, c) f = Relu(h) t = Add(s, f) u = Add(t, f) y = Gemm(u, v)",
        "s = Gemm(x, w, b) f = Relu(s) t = Add(s, f) y = Gemm(t, v)",
    ],
    ids=["two layers beside each other", "read by another node too", "no layer inside"],
)
def test_other_sums_have_none(text: str) -> None:
    weights = random_weights(w=(4, 8), b=(8,), a=(4, 8), c=(8, 8), v=(8, 3))
    used = {name: array for name, array in weights.items() if f" {name}" in text or f"{name})" in text}
    assert names(graph(text, used)) == []


def test_a_constant_stands_in_for_a_block() -> None:
    original = stream(2)
    model = load(original)
    name, other = names(original)
    mean = np.arange(8.0)
    small = to_proto(without_block(model, name, mean))
    assert names(small) == [other]
    assert len(small.graph.node) == len(original.graph.node) - 3
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in original.graph.initializer}
    s = x @ weights["w"] + weights["b"] + mean
    s = s + np.maximum(s @ weights["a1"] + weights["k1"], 0) @ weights["c1"] + weights["d1"]
    assert_allclose(run(small, {"x": x})[0], s @ weights["v"], rtol=1e-4, atol=1e-4)


def test_a_plan_that_leaves_no_channel_removes_the_block() -> None:
    model = load(stream(2))
    group = next(g for g in find_channel_groups(model, shapes_of(model)) if g.channels == 6)
    changes = MergeChannels(plan={group.name: NONE_OF_6})(model)
    (merged,) = (change for change in changes if isinstance(change, Merged))
    assert (merged.group, merged.before, merged.after, merged.parameters_saved) == (group.name, 6, 0, 110 - 8)
    onnx.checker.check_model(to_proto(model), full_check=True)


def test_other_groups_keep_a_channel() -> None:
    model = load(graph("h = Gemm(x, a) r = Relu(h) y = Gemm(r, c)", random_weights(a=(4, 6), c=(6, 3))))
    group = find_channel_groups(model, shapes_of(model))[0]
    assert emptied_blocks(model, shapes_of(model), (group,), {group.name: NONE_OF_6}) == ()
    with pytest.raises(OptionError, match=f"the plan leaves no channel of {group.name}, which is in no residual block"):
        MergeChannels(plan={group.name: NONE_OF_6})(model)


def inner(model: onnx.ModelProto) -> list[str]:
    """Return the groups inside the blocks of `stream`, in order."""
    loaded = load(model)
    return [group.name for group in find_channel_groups(loaded, shapes_of(loaded)) if group.channels == 6]


def removed(report: Report) -> list[str]:
    return [change.group for change in report.of(Merged) if not change.after]


def test_a_budget_takes_a_block_that_hardly_matters() -> None:
    original = stream(4, useless=2)
    _, report = compress(original, target_params=0.8)
    assert report.passed
    assert removed(report) == [inner(original)[2]]
    assert report.after.parameters <= 0.8 * report.before.parameters


def test_blocks_stay_where_they_are_to_stay() -> None:
    original = stream(4, useless=2)
    _, report = compress(original, target_params=0.8, blocks="keep")
    assert removed(report) == []
    _, report = compress(original, target_params=0.8, exclude=(inner(original)[2],))
    assert inner(original)[2] not in removed(report)
    _, report = compress(original, ratio=0.3, uniform=True)
    assert removed(report) == []


def test_a_result_without_a_block_can_be_planned_again(tmp_path: Path) -> None:
    original = stream(4, useless=2)
    first, report = compress(original, target_params=0.8)
    assert removed(report)
    path = tmp_path / "plan.json"
    path.write_text(plan_text({change.group: change.merge_map for change in report.of(Merged)}))
    again, _ = compress(original, plan=load_plan(path))
    assert again.SerializeToString() == first.SerializeToString()


def test_all_weights_learn_without_the_block_too() -> None:
    _, report = compress(stream(4, useless=2), target_params=0.8, effort="standard")
    assert report.passed
    assert removed(report)
