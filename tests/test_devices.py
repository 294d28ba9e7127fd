"""Where sessions run; and what a GPU computes beside the CPU, where there is one."""

import array_api_compat.numpy as numpy_namespace
import numpy as np
import onnxruntime
import pytest
from graphs import graph, random_weights
from numpy.testing import assert_allclose, assert_array_equal

from onnx_tropnnc import compress
from onnx_tropnnc.backend import array_module, missing_cuda, to_numpy
from onnx_tropnnc.changes import Merged, Note
from onnx_tropnnc.engine import on_a_device
from onnx_tropnnc.merging.clustering import Keep, cluster
from onnx_tropnnc.merging.gram import gram_matrix
from onnx_tropnnc.merging.merge_map import ChannelVectors
from onnx_tropnnc.merging.representatives import Iterative, merge
from onnx_tropnnc.merging.wide_ward import wide_labels
from onnx_tropnnc.options import Options
from onnx_tropnnc.running.devices import CPU, CUDA, cuda_provider_missing, providers, running_on
from onnx_tropnnc.running.sessions import Runner
from onnx_tropnnc.solving.reconstruction import NormalEquations, Solution, solve

VECTORS = np.random.default_rng(0).standard_normal((200, 60)).astype(np.float32)


def test_the_cpu_is_the_default_and_cuda_needs_its_provider() -> None:
    best = CPU if cuda_provider_missing() else CUDA
    assert providers() == CPU
    with running_on("cuda"):
        assert providers() == best
        with running_on("cpu"):
            assert providers() == CPU
    assert providers() == CPU


def test_the_device_ends_with_an_error() -> None:
    with pytest.raises(ValueError, match="broken"), running_on("cuda"):
        raise ValueError("broken")
    assert providers() == CPU


def test_sessions_run_where_they_are_said_to() -> None:
    model = graph("y = Gemm(x, w)", random_weights(w=(4, 3)))
    assert tuple(Runner.load(model).session.get_providers()) == CPU
    with running_on("cuda"):
        assert tuple(Runner.load(model).session.get_providers()) == providers()


@pytest.mark.skipif(CUDA[0] in onnxruntime.get_available_providers(), reason="onnxruntime is built for CUDA here")
def test_an_onnxruntime_for_the_cpu_says_so() -> None:
    assert cuda_provider_missing() == "onnxruntime has no CUDAExecutionProvider here"


@pytest.mark.gpu
def test_models_run_on_the_gpu_where_there_is_one() -> None:
    assert cuda_provider_missing() is None
    with running_on("cuda"):
        assert providers() == CUDA


@pytest.mark.skipif(missing_cuda() is None, reason="there is a GPU here")
def test_without_a_gpu_there_is_a_line_where_one_was_asked_for() -> None:
    options, notes = on_a_device(Options(ratio=0.5, device="cuda"))
    assert options.device == "cpu"
    assert [str(note) for note in notes] == [f"warning: --device cuda: {missing_cuda()}; the CPU was used instead"]
    for device in ("auto", "cpu"):
        options, notes = on_a_device(Options(ratio=0.5, device=device))
        assert (options.device, notes) == ("cpu", ())


@pytest.mark.gpu
def test_gram_products_and_clusters_are_the_cpus() -> None:
    xp = array_module("cuda")
    there, here = (gram_matrix((VECTORS,), namespace) for namespace in (xp, numpy_namespace))
    assert_allclose(to_numpy(there.centred), here.centred, atol=1e-3)
    for clustering in ("kmeans", "ward"):
        found = [cluster((VECTORS,), Keep(120), seed=0, xp=n, clustering=clustering) for n in (xp, numpy_namespace)]
        assert_array_equal(found[0], found[1])
    assert_array_equal(wide_labels((VECTORS,), xp, count=120), wide_labels((VECTORS,), numpy_namespace, count=120))


@pytest.mark.gpu
def test_the_iterative_method_is_the_cpus() -> None:
    group = ChannelVectors((VECTORS[:, :30],), (VECTORS[:, 30:],))
    maps = [merge(group, Keep(120), Iterative(), seed=0, xp=n) for n in (array_module("cuda"), numpy_namespace)]
    assert_array_equal(maps[0].labels, maps[1].labels)
    assert_allclose(maps[0].alpha, maps[1].alpha, atol=1e-4)


@pytest.mark.gpu
def test_normal_equations_are_the_cpus() -> None:
    rng = np.random.default_rng(1)
    u, w = rng.standard_normal((400, 12)).astype(np.float32), rng.standard_normal((12, 5)).astype(np.float32)
    t, held = (u @ w).astype(np.float32) + 0.1, np.arange(400) % 5 == 4
    solutions = []
    for xp in (array_module("cuda"), numpy_namespace):
        equations = NormalEquations(xp.asarray(np.zeros_like(w)), xp.asarray(np.zeros(5, np.float32)))
        equations.add(xp.asarray(u), xp.asarray(t), held)
        found = solve(equations, (1e-3, 1e-2))
        assert isinstance(found, Solution)
        solutions.append(to_numpy(found.weights))
    assert_allclose(solutions[0], solutions[1], atol=1e-4)


@pytest.mark.gpu
def test_models_run_on_the_gpu_and_come_out_alike() -> None:
    network = graph("c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u)", random_weights(w=(4, 16), k=(16,), u=(16, 3)))
    reports = [compress(network, ratio=0.5, device=device)[1] for device in ("cuda", "cpu")]
    assert not [note for note in reports[0].of(Note) if "--device" in note.text]
    maps = [report.of(Merged)[0].merge_map.labels.tolist() for report in reports]
    assert maps[0] == maps[1]
    assert [report.passed for report in reports] == [True, True]
