"""A result is never larger than its original: tables get no second copy, and groups that add parameters are undone."""

import pytest
from graphs import graph, random_weights

from onnx_tropnnc import compress
from onnx_tropnnc.changes import Kept, Merged

# The columns of the table are channels of `h`, and where scores are computed channels of `a` too.
HEAD = "h = Gather(table, ids) b = MatMul(h, w1) c = Relu(b) d = MatMul(c, w2) a = Relu(d)"
TURNED = "turned = Transpose <perm = [1, 0]> (table) y = MatMul(a, turned)"


@pytest.mark.parametrize("tail", [TURNED, "y = Gemm <transB = 1> (a, table)"])
def test_a_tied_table_is_not_copied(tail: str) -> None:
    weights = random_weights(table=(60, 16), w1=(16, 12), w2=(12, 16))
    model = graph(f"{HEAD} {tail}", weights, inputs="int64[N] ids", outputs="float[N, 60] y")
    _, report = compress(model, ratio=0.5, reconstruct="off", round_to=1)
    (merged,) = report.of(Merged)
    assert merged.group == "MatMul_1"
    assert (report.before.parameters, report.after.parameters) == (1344, 1344 - 6 * (16 + 16))


# Two layers scale their channels by one constant. Merging either of them alone needs a copy of it, with 98 elements,
# and saves 12 weights.
SHARED = "a = MatMul(x, w1) b = Mul(a, s) c = Relu(b) d = MatMul(c, w2) e = MatMul(d, w3) f = Mul(e, s) g = Relu(f)"
THIRD = "h = MatMul(g, w4) i = MatMul(h, w5) j = Relu(i) y = MatMul(j, w6)"
SIZES = {"w1": (3, 100), "s": (100,), "w2": (100, 3), "w3": (3, 100), "w4": (100, 3)}
ENDS = {"inputs": "float[N, 3] x", "outputs": "float[N, 3] y"}


def test_groups_that_make_the_model_larger_are_undone_with_the_reason() -> None:
    model = graph(f"{SHARED} {THIRD}", random_weights(**SIZES, w5=(3, 50), w6=(50, 3)), **ENDS)
    _, report = compress(model, ratio=0.02, uniform=True, reconstruct="off", round_to=1)
    assert [change.group for change in report.of(Merged)] == ["MatMul_8"]
    undone = {change.group: change.reason.text for change in report.of(Kept) if change.reason.kind == "undone"}
    assert list(undone) == ["MatMul_0", "MatMul_4"]
    assert all("made the model larger" in text for text in undone.values())
    assert (report.before.parameters, report.after.parameters) == (1600, 1594)


def test_where_every_group_makes_the_model_larger_it_stays_as_it_is() -> None:
    model = graph(f"{SHARED} y = MatMul(g, w4)", random_weights(**SIZES), **ENDS)
    _, report = compress(model, ratio=0.02, round_to=1)
    assert not report.of(Merged)
    assert report.before.parameters == report.after.parameters == 1300
