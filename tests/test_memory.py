"""What runs take, and that --memory bounds it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph, random_weights

from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.graph.memory import run_bytes, tensor_bytes
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.samples import samples_for, samples_wanted
from onnx_tropnnc.running.watching import watched

CONVOLUTIONS = "c = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(c) d = Conv<pads = [1, 1, 1, 1]>(r, u) s = Relu(d)"

PEAK = """
import resource, subprocess, sys
found = subprocess.run([sys.executable, "-m", "onnx_tropnnc", *sys.argv[1:]], capture_output=True, text=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, found.stdout, found.stderr)
sys.exit(found.returncode)
"""


def pictures(side: int) -> onnx.ModelProto:
    """Return a classifier of pictures of a fixed size, one at a time."""
    weights = random_weights(w=(16, 3, 3, 3), u=(16, 16, 3, 3), p=(16, 3))
    body = f"{CONVOLUTIONS} g = GlobalAveragePool(s) f = Flatten(g) y = MatMul(f, p)"
    return graph(body, weights, inputs=f"float[1, 3, {side}, {side}] x", outputs="float[1, 3] y")


def test_a_run_takes_what_is_alive_at_its_widest_place() -> None:
    model = load(pictures(10))
    planes = 4 * 10 * 10  # bytes of a channel
    assert run_bytes(model, {"x": (1, 3, 10, 10)}) == 2 * 16 * planes
    assert run_bytes(model, {"x": (2, 3, 10, 10)}) == 2 * 2 * 16 * planes
    assert run_bytes(model, {}) == 2 * 16 * planes


@pytest.mark.parametrize("memory", [2**10, 2**30])
def test_tensors_too_large_for_one_run_come_in_portions(memory: int) -> None:
    model = load(pictures(8))
    array = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    samples = Samples((ResolvedInput("x", np.dtype(np.float32), (3, 8, 8), batch=1),), {"x": array}, None, "here")
    found: dict[str, list[np.ndarray]] = {}
    portions = set()
    for number, count, tensors in watched(model, ("r", "s", "g"), (samples, samples.take([0])), memory=memory):
        portions.add(tuple(tensors))
        for name, tensor in tensors.items():
            assert len(tensor) == count
            found.setdefault(f"{name}{number}", []).append(tensor)
    assert portions == ({("r",), ("s",), ("g",)} if memory < 2**20 else {("r", "s", "g")})
    assert {name: np.concatenate(arrays).shape[0] for name, arrays in found.items()} == {
        f"{name}{number}": count for name in "rsg" for number, count in ((0, 5), (1, 1))
    }
    np.testing.assert_allclose(np.concatenate(found["g0"])[:1], found["g1"][0], rtol=1e-5)


def test_fewer_samples_are_made_where_one_takes_much_memory() -> None:
    large = load(pictures(512))
    assert (samples_wanted(large), samples_wanted(large, 2**26), samples_wanted(large, 2**23)) == (80, 3, 1)
    made = samples_for(large, memory=2**26)
    assert made.count == 3
    assert made.notes == ("3 samples were made up instead of 80: more would take over a sixth of --memory",)
    assert samples_for(load(pictures(32))).notes == ()


def test_fewer_samples_are_made_where_one_takes_long() -> None:
    slow = load(pictures(1100))  # 3.3 billion multiply-accumulates
    assert samples_wanted(slow, 2**36) == 60


def test_memory_bounds_what_a_whole_run_takes(tmp_path: Path) -> None:
    """The activations of one sample take 33 MB here: at a twelfth of the pixels and of the memory, as 2048 x 2048."""
    onnx.save(pictures(512), tmp_path / "in.onnx")
    command = [sys.executable, "-c", PEAK, "in.onnx", "out.onnx", "--ratio", "0.3", "--memory", "0.12"]
    found = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "samples were made up instead of 80" in found.stdout
    assert "output y: relative L2 error" in found.stdout
    assert int(found.stdout.split()[0]) < 700  # MB, of which Python and its libraries are about 300


def test_a_tensor_of_a_type_that_is_not_known_counts_four_bytes_an_element() -> None:
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.UNDEFINED))
    assert tensor_bytes(value, {"x": (2, 3)}) == 24
