"""Models that were exported for one sample a run: which of them run any number, and that they then do."""

import numpy as np
import pytest
from graphs import CONTRIB, graph, random_weights

from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.activations import LockStep, Stop
from onnx_tropnnc.running.free_batches import freed

WEIGHTS = random_weights(w=(4, 5), b=(5,), rows=(1, 4))
DECLARED = {"inputs": "float[1, 4] x", "outputs": "float[1, M] y"}


def samples(count: int = 50, batch: int | None = 1) -> Samples:
    entry = ResolvedInput("x", np.dtype(np.float32), (4,), batch=batch)
    arrays = {"x": np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)}
    return Samples((entry,), arrays, None, "drawn")


@pytest.mark.parametrize(
    "body",
    [
        "a = Gemm(x, w, b) y = Relu(a)",
        "a = Sub(x, rows) f = Flatten(a) y = MatMul(f, w)",
        "y = Softmax <axis = -1> (x)",
        "shape = Constant <value_ints = [-1, 4]> () a = Reshape(x, shape) y = MatMul(a, w)",
    ],
)
def test_samples_that_stay_apart_are_run_together(body: str) -> None:
    model = load(graph(body, WEIGHTS, **DECLARED))
    assert freed(samples(), {"m": model}, {"m": ["y"]}).inputs[0].batch is None
    visit = next(iter(LockStep({"m": model}, samples(), [Stop("y", {"m": ("y",)})])))
    assert [len(batch["m"]["y"]) for batch in visit] == [50]


@pytest.mark.parametrize(
    "body",
    [
        "y = Softmax <axis = 0> (x)",
        "shape = Constant <value_ints = [1, -1]> () y = Reshape(x, shape)",
        "y = CumSum(x, zero)",
        "n = RandomNormalLike(x) y = Add(n, x)",
        """total = ReduceSum <keepdims = 0> (x) high = Less(total, zero_number)
           y = If (high) <then_branch = g1 () => (float[1, 4] t) { t = Neg(x) },
                          else_branch = g2 () => (float[1, 4] e) { e = Relu(x) }>""",
    ],
)
def test_samples_that_a_node_mixes_are_run_alone(body: str) -> None:
    constants = {"zero": np.asarray(0, np.int64), "zero_number": np.asarray(-1e9, np.float32)}
    model = load(graph(body, WEIGHTS | constants, **DECLARED))
    assert freed(samples(), {"m": model}, {"m": ["y"]}).inputs[0].batch == 1


def test_operators_of_onnxruntime_are_run_alone() -> None:
    """They check less: GroupQueryAttention of 1.24 ends the process where its lengths are those of one sample."""
    model = load(graph(f"y = {CONTRIB}.Inverse(x)", inputs="float[1, 4, 4] x", outputs="float[1, 4, 4] y"))
    entry = ResolvedInput("x", np.dtype(np.float32), (4, 4), batch=1)
    arrays = {"x": np.random.default_rng(0).standard_normal((9, 4, 4)).astype(np.float32)}
    assert freed(Samples((entry,), arrays, None, "drawn"), {"m": model}, {"m": ["y"]}).inputs[0].batch == 1


def test_what_takes_more_than_one_sample_a_run_stays_so() -> None:
    model = load(graph("y = Relu(x)", inputs="float[8, 4] x", outputs="float[8, 4] y"))
    assert freed(samples(batch=8), {"m": model}, {"m": ["y"]}).inputs[0].batch == 8
