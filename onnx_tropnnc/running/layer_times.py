"""Measure how long each layer of a model takes, with the profile that onnxruntime writes of its kernels.

    layer_times(model, proto, feed)              {"/conv1/Conv": 0.031, "/fc/Gemm": 0.007}: milliseconds of one run

onnxruntime fuses what stands behind a layer into it, and then names the kernel `fused NAME` or after the last tensor
that it computes. A kernel therefore belongs to the layer from which the named node or tensor can be reached without
passing another layer, the nearest one where there are several. Layers that no kernel is found for are left out.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import label, name_of
from onnx_tropnnc.graph.layers import LAYERS, weight_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.running.profiles import profile_events
from onnx_tropnnc.running.sessions import Runner

__all__ = ["layer_times"]

# The first run allocates memory; the fastest of hundreds of runs is one that nothing else disturbed.
_FEWEST, _MOST = 3, 300

# Seconds for all runs of one model: a report must not take noticeably longer because of them.
_PATIENCE = 0.5


def layer_times(model: Model, serialized: bytes, feed: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Return the milliseconds that each layer takes in its fastest run, by the layer's name.

    Args:
        model: the model as a graph, to find the layers that kernels belong to.
        serialized: the same model, as onnxruntime loads it.
        feed: what one run reads.

    Raises:
        NotRunnable: onnxruntime is missing, or cannot load or run the model, or the profile cannot be written.
    """
    owners = _owners(model)
    times: dict[str, list[float]] = defaultdict(list)
    for kernels in _runs(serialized, feed):
        taken: dict[str, float] = {}
        for kernel, milliseconds in kernels:
            # Of several layers that reach a tensor, as both sides of a residual addition do, the one without a kernel
            # of its own so far is meant.
            found = next((layer for layer in owners.get(kernel, ()) if layer not in taken), None)
            if found is not None:
                taken[found] = milliseconds
        for layer, milliseconds in taken.items():
            times[layer].append(milliseconds)
    # The fastest run, since kernels of microseconds take twice as long whenever the machine does something else.
    return {layer: min(log) for layer, log in times.items()}


def _runs(serialized: bytes, feed: Mapping[str, NDArray[Any]]) -> Iterator[list[tuple[str, float]]]:
    """Yield the kernels of layers of each run but the first, in order: the name without decoration, milliseconds."""

    def work(runner: Runner) -> None:
        begin, runs = time.perf_counter(), 0
        while runs < _FEWEST or (runs < _MOST and time.perf_counter() - begin < _PATIENCE):
            runner.run(feed)
            runs += 1

    current: list[tuple[str, float]] = []
    number = 0
    for event in profile_events(serialized, work, spinning=True):
        name = event["name"]
        if name == "model_run":
            number += 1
            if number > 1:
                yield current
            current = []
        # Names of fused kernels end so, too: FusedConv, FusedGemm, FusedMatMul.
        elif name.endswith("_kernel_time") and event["args"]["op_name"].endswith(LAYERS):
            current.append((_plain(name), event["dur"] / 1000))


def _plain(kernel: str) -> str:
    """Return the name of the node or tensor that a kernel is named after.

    >>> _plain("fused /fc1/Gemm_kernel_time"), _plain("/relu/Relu_output_0_nchwc_kernel_time")
    ('/fc1/Gemm', '/relu/Relu_output_0')
    """
    plain = kernel.removesuffix("_kernel_time").removesuffix("_nchwc").removeprefix("fused ")
    # a MatMul with the Add behind it, as one Gemm
    return plain.removesuffix("/MatMulAddFusion")


def _owners(model: Model) -> dict[str, list[str]]:
    """Return for each name of a node or tensor the layers from which it is reached, the nearest first."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for node in model.graph:
        if weight_of(node) is not None:
            for distance, name in _reached(node):
                found[name].append((distance, label(node)))
    return {name: [layer for _, layer in sorted(layers)] for name, layers in found.items()}


def _reached(layer: ir.Node) -> Iterator[tuple[int, str]]:
    """Yield the names of a layer and of what stands behind it up to the next layers, with the distance in nodes."""
    waiting, seen, distance = [layer], {layer}, 0
    while waiting:
        following = []
        for node in waiting:
            yield distance, label(node)
            for value in node.outputs:
                yield distance, name_of(value)
                for use in value.uses():
                    if use.node not in seen and weight_of(use.node) is None:
                        seen.add(use.node)
                        following.append(use.node)
        # onnxruntime fuses a bias, a normalization, an addition and an activation at most; what is further away is not
        # a part of the layer's kernel.
        waiting, distance = (following, distance + 1) if distance < 4 else ([], distance)
