"""Made-up samples of models whose runs never end, or whose tensors fill the memory."""

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import graph, random_weights

from onnx_tropnnc import compress
from onnx_tropnnc.running import made_up_samples

WEIGHTS = random_weights(w=(4, 6), u=(6, 3))


def endless() -> onnx.ModelProto:
    body = "go = Identity(going) now = Relu(before)"
    loop = f"h = Loop <body = g (int64 i, bool going, float[N, 6] before) => (bool go, float[N, 6] now) {{ {body} }}>"
    return graph(f"a = MatMul(x, w) {loop} (trips, yes, a) y = MatMul(h, u)", _with(trips=np.int64(2**40), yes=True))


def _with(**constants: object) -> dict[str, np.ndarray]:
    return WEIGHTS | {name: np.asarray(value) for name, value in constants.items()}


def test_a_run_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_up_samples, "RUN_SECONDS", 0.6)
    result, report = compress(endless(), ratio=0.5)
    assert [tensor.dims[1] for tensor in result.graph.initializer if tensor.name == "u"] == [3]
    assert report.verification.not_verified == "a run of one sample takes over 1 s, and may never end"


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("h = Tile(a, many) m = ReduceMax(h) b = Add(a, m)", {"many": np.array([2**30, 1])}),
        ("k = Range(zero, many, one) m = ReduceMax(k) b = Add(a, m)", {"many": np.float32(2e9)}),
    ],
)
def test_tensors_that_would_fill_the_memory_are_not_computed(body: str, constants: dict[str, object]) -> None:
    numbers = constants | {"zero": np.float32(0), "one": np.float32(1)}
    used = {name: value for name, value in numbers.items() if name in body}
    model = graph(f"a = MatMul(x, w) {body} y = MatMul(b, u)", _with(**used))
    _, report = compress(model, ratio=0.5)
    assert "the tensors of one run would take" in (report.verification.not_verified or "")


def test_what_ends_is_run_as_ever() -> None:
    model = graph("a = MatMul(x, w) h = Relu(a) y = MatMul(h, u)", WEIGHTS)
    result, report = compress(model, ratio=0.5)
    assert report.verification.not_verified is None
    onnxruntime.InferenceSession(result.SerializeToString())
