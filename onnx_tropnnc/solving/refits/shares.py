"""Divide the work that all searches of a model may do among its pairs and chains of layers."""

from collections.abc import Sequence
from dataclasses import replace

from onnx_tropnnc.solving.layer_jobs import LayerJob
from onnx_tropnnc.solving.refits.chain_jobs import chains_of
from onnx_tropnnc.solving.refits.effort import ALL_EFFORT, affordable_batch, search_macs
from onnx_tropnnc.solving.refits.pair_jobs import pair_sizes

__all__ = ["searched", "searches_share"]


def searched(job: LayerJob, share: float) -> LayerJob:
    """Return the job, without its pair where that is too wide for a search: then the layer is solved alone."""
    pair = job.consumer.pair
    if pair is None or affordable_batch(pair_sizes(job, pair), share):
        return job
    return replace(job, consumer=replace(job.consumer, pair=None))


def searches_share(jobs: Sequence[LayerJob]) -> float:
    """Return the part of its usual work that each search may do, so that those of a model together do ALL_EFFORT."""
    pairs = [search_macs(pair_sizes(job, pair)) for job in jobs if (pair := job.consumer.pair) is not None]
    chains = [search_macs([layer.elements for layer in chain.layers]) for chain in chains_of(jobs)]
    return min(1.0, ALL_EFFORT / max(1, sum(pairs) + sum(chains)))
