"""Models whose runs never end, or whose tensors fill the memory, on made-up samples and on given ones."""

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import graph, random_weights

from onnx_tropnnc import compress
from onnx_tropnnc.changes import Note
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.running import run_limits
from onnx_tropnnc.running.sessions import Runner, seconds_of_runs

WEIGHTS = random_weights(w=(4, 6), u=(6, 3))


def endless() -> onnx.ModelProto:
    body = "go = Identity(going) now = Relu(before)"
    loop = f"h = Loop <body = g (int64 i, bool going, float[N, 6] before) => (bool go, float[N, 6] now) {{ {body} }}>"
    return graph(f"a = MatMul(x, w) {loop} (trips, yes, a) y = MatMul(h, u)", _with(trips=np.int64(2**40), yes=True))


def _with(**constants: object) -> dict[str, np.ndarray]:
    return WEIGHTS | {name: np.asarray(value) for name, value in constants.items()}


def test_a_run_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_limits, "RUN_SECONDS", 0.6)
    result, report = compress(endless(), ratio=0.5)
    assert [tensor.dims[1] for tensor in result.graph.initializer if tensor.name == "u"] == [3]
    assert report.verification.not_verified == "a run of one sample takes over 1 s, and may never end"


def test_a_run_on_given_samples_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_limits, "RUN_SECONDS", 0.6)
    result, report = compress(endless(), ratio=0.5, data={"x": np.ones((6, 4), np.float32)})
    assert [tensor.dims[1] for tensor in result.graph.initializer if tensor.name == "u"] == [3]
    assert report.verification.not_verified == "a run of these samples takes over 1 s, and may never end"
    (warning,) = [note.text for note in report.of(Note) if note.level == "warning"]
    assert warning.startswith("the model was run on no samples, so channels were merged by their weights")


def test_a_run_that_does_not_end_on_later_samples_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_limits, "RUN_SECONDS", 0.6)
    body = "now = Relu(before) m = ReduceMax <keepdims = 0> (now) go = Less(m, most)"
    loop = f"h = Loop <body = g (int64 i, bool going, float[N, 6] before) => (bool go, float[N, 6] now) {{ {body} }}>"
    weights = _with(trips=np.int64(2**40), yes=True, most=np.float32(1))
    model = graph(f"a = MatMul(x, w) {loop} (trips, yes, a) y = MatMul(h, u)", weights)
    ending = 50 * np.ones((70, 4), np.float32)
    assert compress(model, ratio=0.5, data={"x": ending})[1].verification.not_verified is None
    ending[32:] = 0  # those of the second run
    report = compress(model, ratio=0.5, data={"x": ending})[1]
    assert "may never end" in (report.verification.not_verified or "")


def test_a_result_that_does_not_end_is_no_result() -> None:
    with seconds_of_runs(0.6):
        runner = Runner.load(endless())
    with pytest.raises(NotRunnable, match="a run takes over 1 s, and may never end"):
        runner.run({"x": np.ones((1, 4), np.float32)})


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("h = Tile(a, many) m = ReduceMax(h) b = Add(a, m)", {"many": np.array([2**30, 1])}),
        ("k = Range(zero, many, one) m = ReduceMax(k) b = Add(a, m)", {"many": np.float32(2e9)}),
    ],
)
def test_tensors_that_would_fill_the_memory_are_not_computed(
    body: str, constants: dict[str, object], given: bool
) -> None:
    numbers = constants | {"zero": np.float32(0), "one": np.float32(1)}
    used = {name: value for name, value in numbers.items() if name in body}
    model = graph(f"a = MatMul(x, w) {body} y = MatMul(b, u)", _with(**used))
    _, report = compress(model, ratio=0.5, data={"x": np.ones((5, 4), np.float32)} if given else None)
    assert "the tensors of one run would take" in (report.verification.not_verified or "")


def test_what_ends_is_run_as_ever() -> None:
    model = graph("a = MatMul(x, w) h = Relu(a) y = MatMul(h, u)", WEIGHTS)
    result, report = compress(model, ratio=0.5)
    assert report.verification.not_verified is None
    onnxruntime.InferenceSession(result.SerializeToString())
