"""Chains of linear layers, refitted as wholes: which there are, and what that brings, end to end on small graphs."""

import re

import numpy as np
import pytest
from graphs import graph, initializers, operators, random_weights
from reconstructing import apply, error, kept, reconstructed, samples

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.changes import Note
from onnx_tropnnc.graph.constants import label
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.solving.consumers import Consumer, find_consumers
from onnx_tropnnc.solving.layer_jobs import LayerJob
from onnx_tropnnc.solving.refits.chain_jobs import chains_of

WEIGHTS = random_weights(w1=(4, 16), b1=(16,), w2=(16, 16), w3=(16, 16), b3=(16,), w4=(16, 3))
BODY = "a = Gemm(x, w1, b1) b = Relu(a) c = MatMul(b, w2) d = Tanh(c) e = Gemm(d, w3, b3) f = Relu(e) y = Gemm(f, w4)"
MERGES = {"Gemm_0": kept(16, *range(8)), "MatMul_2": kept(16, *range(8)), "Gemm_4": kept(16, *range(8))}


def jobs_of(body: str, weights: dict[str, np.ndarray], merged: set[str], **io: str) -> list[LayerJob]:
    """Return the layers to solve where these groups are merged."""
    reference = load(graph(body, weights, **io))
    shapes = shapes_of(reference)
    groups = [group for group in find_channel_groups(reference, shapes) if group.name in merged]
    merges = {group.name: kept(group.channels, 0, 1) for group in groups}
    found = find_consumers(reference, apply(reference, merges), groups, merges, shapes, pairs=True)
    return [LayerJob(job, (job.layer,), None) for job in found if isinstance(job, Consumer)]


def chains(body: str, weights: dict[str, np.ndarray], merged: set[str], **io: str) -> list[list[str]]:
    """Return the names of each chain's layers."""
    jobs = jobs_of(body, weights, merged, **io)
    return [[label(layer.node) for layer in chain.layers] for chain in chains_of(jobs)]


def test_a_chain_is_as_long_as_it_can_be() -> None:
    assert chains(BODY, WEIGHTS, set(MERGES)) == [["Gemm_0", "MatMul_2", "Gemm_4", "Gemm_6"]]


def test_chains_take_the_share_of_all_searches_that_is_theirs() -> None:
    assert [chain.share for chain in chains_of(jobs_of(BODY, WEIGHTS, set(MERGES)), 0.25)] == [0.25]


def test_a_layer_that_reads_nothing_merged_ends_a_chain() -> None:
    assert chains(BODY, WEIGHTS, {"Gemm_0", "MatMul_2"}) == [["Gemm_0", "MatMul_2", "Gemm_4"]]
    assert chains(BODY, WEIGHTS, {"Gemm_0", "Gemm_4"}) == []


def test_what_is_read_elsewhere_too_ends_a_chain() -> None:
    outputs = "float[N, 3] y, float[N, 16] z"
    assert chains(f"{BODY} z = Neg(f)", WEIGHTS, set(MERGES), outputs=outputs) == [["Gemm_0", "MatMul_2", "Gemm_4"]]


def test_convolutions_are_no_chains() -> None:
    weights = random_weights(u=(8, 2, 1, 1), v=(8, 8, 1, 1), w=(3, 8, 1, 1))
    io = {"inputs": "float[N, 2, 5, 5] x", "outputs": "float[N, 3, 5, 5] y"}
    body = "a = Conv(x, u) b = Relu(a) c = Conv(b, v) d = Relu(c) y = Conv(d, w)"
    assert chains(body, weights, {"Conv_0", "Conv_2"}, **io) == []


def test_a_chain_is_solved_further_than_its_layers_one_by_one() -> None:
    data = samples(4000)
    _, result, changes = reconstructed(graph(BODY, WEIGHTS), MERGES, data)
    (note,) = (change.text for change in changes if isinstance(change, Note))
    found = re.fullmatch(r"refit jointly: Gemm_0, MatMul_2, Gemm_4, Gemm_6: error (.*) % -> (.*) %", note)
    assert found is not None
    before, after = (float(text) / 100 for text in found.groups())
    assert after < 0.9 * before
    assert error(graph(BODY, WEIGHTS), result, data) == pytest.approx(after, rel=0.25)


def test_no_layer_gets_a_bias_for_it() -> None:
    """MatMul_2 has none; the consumers' own ones are those that they get anyway where it costs no node."""
    _, alone, _ = reconstructed(graph(BODY, WEIGHTS), MERGES, samples(4000), refit=False)
    _, result, _ = reconstructed(graph(BODY, WEIGHTS), MERGES, samples(4000))
    assert operators(result) == operators(alone)
    shapes = [{name: array.shape for name, array in initializers(model).items()} for model in (result, alone)]
    assert shapes[0] == shapes[1]


def test_without_refit_there_is_no_search() -> None:
    changes = reconstructed(graph(BODY, WEIGHTS), MERGES, samples(400), refit=False)[2]
    assert not [change for change in changes if isinstance(change, Note)]
