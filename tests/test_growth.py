"""A result is never larger than its original: a table that two nodes read in different ways gets no second copy."""

import pytest

from onnx_tropnnc import compress
from onnx_tropnnc.changes import Merged
from tests.graphs import graph, random_weights

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
