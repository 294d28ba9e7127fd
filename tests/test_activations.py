"""Models run side by side, stop by stop: what the stops see, how often nodes run, and what is refused."""

import numpy as np
import onnx
import onnx.helper
import pytest
from graphs import graph, random_weights, run

from onnx_tropnnc.errors import NotRunnable, SampleError
from onnx_tropnnc.graph.constants import set_array
from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.running.activations import LockStep, Stop

CHAIN = "a = MatMul(x, w1)  r = Relu(a)  b = MatMul(r, w2)  s = Relu(b)  y = Add(s, r)"
CHAIN_WEIGHTS = random_weights(w1=(4, 5), w2=(5, 5))


def chain() -> onnx.ModelProto:
    return graph(CHAIN, CHAIN_WEIGHTS, outputs="float[N, 5] y")


def samples(count: int = 10, seed: int = 0, **shapes: tuple[int, ...]) -> Samples:
    """Normal samples, stacked; `x` of 4 numbers where nothing is said."""
    rng = np.random.default_rng(seed)
    given = shapes or {"x": (4,)}
    inputs = tuple(ResolvedInput(name, np.dtype(np.float32), shape) for name, shape in given.items())
    arrays = {name: rng.standard_normal((count, *shape)).astype(np.float32) for name, shape in given.items()}
    return Samples(inputs, arrays, None, "drawn")


def collected(steps: LockStep, key: str = "m") -> dict[str, np.ndarray]:
    """Everything the stops see of one model, batches put together."""
    found: dict[str, np.ndarray] = {}
    for visit in steps:
        batches = list(visit)
        for name in visit.stop.wanted[key]:
            found[name] = np.concatenate([batch[key][name] for batch in batches])
    return found


def with_outputs(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return probe


def test_stops_see_what_a_whole_run_computes() -> None:
    data = samples(10)
    stops = [Stop("first", {"m": ("r", "x")}), Stop("second", {"m": ("b",)}), Stop("third", {"m": ("y", "r")})]
    found = collected(LockStep({"m": load(chain())}, data, stops, batch=4))
    whole = run(with_outputs(chain(), "b", "y", "r"), {"x": data.arrays["x"]})
    for name, expected in zip(("b", "y", "r"), whole, strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found["x"], data.arrays["x"])


def test_every_node_runs_once_a_batch() -> None:
    """A random node would give other numbers if it ran again for the second stop, or for the third."""
    body = "n = RandomNormalLike(x)  a = Add(n, x)  b = Relu(a)  c = Sub(a, n)"
    model = graph(body, outputs="float[N, 4] c")
    stops = [Stop("n", {"m": ("n",)}), Stop("a", {"m": ("a",)}), Stop("c", {"m": ("c", "n")})]
    data, seen = samples(6), []
    for visit in LockStep({"m": load(model)}, data, stops, batch=2):
        seen.append([dict(batch["m"]) for batch in visit])
    for number, (first, second, third) in enumerate(zip(*seen, strict=True)):
        x = data.arrays["x"][2 * number : 2 * number + 2]
        np.testing.assert_array_equal(third["n"], first["n"])
        np.testing.assert_array_equal(second["a"], first["n"] + x)
        np.testing.assert_array_equal(third["c"], second["a"] - first["n"])


def test_a_change_between_visits_is_seen_by_what_runs_later() -> None:
    model, data = load(chain()), samples(6)
    stops = [Stop("before", {"m": ("r",)}), Stop("after", {"m": ("b",)})]
    found = {}
    for visit in LockStep({"m": model}, data, stops, batch=3):
        found[visit.stop.name] = np.concatenate([next(iter(batch["m"].values())) for batch in visit])
        if visit.stop.name == "before":
            set_array(model.graph.initializers["w2"], 2.0 * CHAIN_WEIGHTS["w2"])
    np.testing.assert_allclose(found["after"], found["before"] @ (2.0 * CHAIN_WEIGHTS["w2"]), rtol=1e-5, atol=1e-5)


def test_two_models_side_by_side() -> None:
    smaller = random_weights(1, w1=(4, 3), w2=(3, 5))
    other = graph("a = MatMul(x, w1)  r = Relu(a)  b = MatMul(r, w2)", smaller, outputs="float[N, 5] b")
    data = samples(5)
    stops = [Stop("b", {"left": ("b",), "right": ("r",)})]
    visit = next(iter(LockStep({"left": load(chain()), "right": load(other)}, data, stops, batch=5)))
    (batch,) = visit
    assert batch["left"]["b"].shape == (5, 5)
    np.testing.assert_allclose(
        batch["right"]["r"], np.maximum(data.arrays["x"] @ smaller["w1"], 0), rtol=1e-5, atol=1e-6
    )


def test_an_update_replaces_what_later_steps_read() -> None:
    data = samples(6)
    stops = [Stop("a", {"m": ("a",)}), Stop("r", {"m": ("r",)})]
    found = {}
    for visit in LockStep({"m": load(chain())}, data, stops, batch=4):
        found[visit.stop.name] = np.concatenate([next(iter(batch["m"].values())) for batch in visit])
        if visit.stop.name == "a":
            visit.update("m", "a", lambda array: array - 1.0)
    np.testing.assert_allclose(found["r"], np.maximum(found["a"] - 1.0, 0), atol=1e-6)


def test_several_inputs_constant_nodes_and_captures_of_an_if() -> None:
    body = """
        two = Constant <value = float {2.0}> ()
        a = Mul(x, two)
        b = Add(a, z)
        total = ReduceSum <keepdims = 0> (z)
        zero = Constant <value = float {0.0}> ()
        is_positive = Greater(total, zero)
        c = If (is_positive) <
            then_branch = g1 () => (float[N, 4] t) { t = Mul(a, two) },
            else_branch = g2 () => (float[N, 4] e) { e = Add(a, b) }
        >
        y = Add(c, two)
    """
    model = graph(body, inputs="float[N, 4] x, float[N, 4] z", outputs="float[N, 4] y")
    data = samples(4, x=(4,), z=(4,))
    stops = [Stop("a", {"m": ("a",)}), Stop("c", {"m": ("c",)}), Stop("y", {"m": ("y",)})]
    found = collected(LockStep({"m": load(model)}, data, stops, batch=4))
    (expected,) = run(model, dict(data.arrays))
    np.testing.assert_allclose(found["y"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["a"], 2 * data.arrays["x"], rtol=1e-6)


def test_unstacked_inputs_run_one_sample_at_a_time() -> None:
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((3, 2, 4)).astype(np.float32)}
    data = Samples((ResolvedInput("x", np.dtype(np.float32), (2, 4), stacked=False),), arrays, None, "drawn")
    visit = next(iter(LockStep({"m": load(chain())}, data, [Stop("r", {"m": ("r",)})])))
    found = [batch["m"]["r"] for batch in visit]
    assert [array.shape for array in found] == [(2, 5)] * 3
    for array, x in zip(found, arrays["x"], strict=True):
        np.testing.assert_allclose(array, np.maximum(x @ CHAIN_WEIGHTS["w1"], 0), rtol=1e-5, atol=1e-6)


def test_memory_bounds_the_frontier_by_taking_fewer_samples() -> None:
    stops = [Stop("r", {"m": ("r",)}), Stop("y", {"m": ("y",)})]
    steps = LockStep({"m": load(chain())}, samples(100), stops)
    assert steps.bytes_per_sample == 4 * 5  # r alone: x and a are read for the last time
    assert steps.affordable().count == 100
    bounded = LockStep({"m": load(chain())}, samples(100), stops, memory=30 * 20)
    assert bounded.affordable().count == 24  # beside runs of 3 samples, whose tensors take a quarter
    seen = [sum(len(next(iter(batch["m"].values()))) for batch in visit) for visit in bounded]
    assert seen == [24, 24]


def test_memory_never_goes_below_one_run() -> None:
    model = graph(CHAIN, CHAIN_WEIGHTS, inputs="float[8, 4] x", outputs="float[8, 5] y")
    fixed = samples(32)
    data = Samples((ResolvedInput("x", np.dtype(np.float32), (4,), batch=8),), fixed.arrays, None, "drawn")
    assert LockStep({"m": load(model)}, data, [Stop("r", {"m": ("r",)})], memory=1).affordable().count == 8


def test_fewer_samples_than_a_run_takes_are_refused() -> None:
    few = samples(5)
    data = Samples((ResolvedInput("x", np.dtype(np.float32), (4,), batch=8),), few.arrays, None, "few.npz")
    with pytest.raises(SampleError, match=r"few\.npz: 5 samples, but a run takes 8"):
        list(LockStep({"m": load(chain())}, data, [Stop("r", {"m": ("r",)})]))


def test_an_unknown_tensor_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError, match="nowhere"):
        list(LockStep({"m": load(chain())}, samples(5), [Stop("s", {"m": ("nowhere",)})]))


def test_what_onnxruntime_cannot_run_is_one_line() -> None:
    model = graph("a = com.microsoft.NoSuchOperator(x)  y = Relu(a)", outputs="float[N, 4] y")
    visit = next(iter(LockStep({"m": load(model)}, samples(5), [Stop("a", {"m": ("a",)})])))
    with pytest.raises(NotRunnable, match="NoSuchOperator"):
        list(visit)


def test_a_frontier_of_sequences_is_refused() -> None:
    body = "q = SequenceConstruct(x, x)  y = ConcatFromSequence <axis = 0> (q)"
    model = graph(body, outputs="float[M, 4] y")
    stops = [Stop("x", {"m": ("q",)})]
    visit = next(iter(LockStep({"m": load(model)}, samples(5), stops)))
    with pytest.raises(NotRunnable, match="no numeric output"):
        list(visit)
