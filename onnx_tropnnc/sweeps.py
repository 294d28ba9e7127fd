"""Sweeps: one model compressed to many amounts by several methods.

Every point is compressed by itself, in parallel where joblib says so: by `with joblib.parallel_config(n_jobs=4)`, or on
a cluster by `joblib.parallel_config(backend="dask")`; workers read a model given by path at that path. Latencies are
measured afterwards, one after the other, where the sweep was called: side by side they would disturb each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, get_args

from onnx_tropnnc.analysis.rounding import Rounding
from onnx_tropnnc.bisection import Refused
from onnx_tropnnc.choices import (
    Amount,
    Blocks,
    Clustering,
    Device,
    Effort,
    Features,
    Heads,
    Linkage,
    MethodName,
    Queries,
    Reconstruct,
    RepresentativeInput,
    RoundingPreset,
    Streams,
    Ties,
    Variant,
)
from onnx_tropnnc.curves import Curve, Point
from onnx_tropnnc.engine import Compression
from onnx_tropnnc.errors import NotRunnable, OptionError
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import EXTERNAL_BYTES, Source, load, to_proto, weight_bytes
from onnx_tropnnc.graph.shapes import input_specs_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.readers import Data, DataReader, read_all
from onnx_tropnnc.inspecting import needed_samples
from onnx_tropnnc.merging.representatives import Method
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_manager import Progress, silent
from onnx_tropnnc.running.cores import sharing_cores
from onnx_tropnnc.running.latency import measure_latency
from onnx_tropnnc.sample_sets import SampleSets

__all__ = ["sweep"]

# The most bytes of samples that are drawn once for all points; where they are more, each point draws its own.
# Every worker gets a copy of them, through a pipe or a network: drawing a large set again is cheaper than sending it.
TRAVELLING = 64 * 2**20

# A quarter of what one compression is timed: a sweep times many points, and an outlier shows in the curve.
_TIMING_SECONDS = 0.5

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def sweep(
    model: Source,
    amount: Amount,
    values: Sequence[float],
    *,
    methods: Sequence[MethodName | str | Method] = ("auto",),
    progress: Progress = silent,
    variant: Variant | None = None,
    clustering: Clustering | None = None,
    features: Features | None = None,
    representative: RepresentativeInput = "mean",
    linkage: Linkage = "ward",
    iterations: int = 3,
    sign_fixed: bool = False,
    uniform: bool = False,
    ratio_for: tuple[tuple[str, float], ...] = (),
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    ties: Ties = "auto",
    blocks: Blocks = "remove",
    streams: Streams = "auto",
    queries: Queries = "auto",
    factorize: bool = False,
    heads: Heads = "keep",
    round_to: int | RoundingPreset | Rounding = "auto",
    reconstruct: Reconstruct = "auto",
    refit: bool = True,
    effort: Effort = "quick",
    data: Data | None = None,
    input_shape: Mapping[str, tuple[int, ...]] = _NOTHING,
    input_range: Mapping[str, tuple[float, float]] = _NOTHING,
    verify: bool = True,
    bound_radius: float | None = None,
    memory: float = 1.5,
    device: Device = "auto",
    seed: int = 0,
) -> Curve:
    """Return what several methods give at several amounts; the model is never changed, and nothing is written.

    Args:
        model: a path, the bytes of a file, or a ModelProto.
        amount: the option that `values` are of: ratio, threshold, target_params or target_macs.
        values: the amounts.
        methods: the methods, each of which gives a curve.
        progress: called with what is being done.
        variant: what thresholds are scaled by; this and all other keywords are those of `compress`, for every point.
            Without are the amounts, `method` and what a result must reach: a sweep shows what every amount gives.

    Raises:
        TropnncError: the model or an option is refused.
    """
    # tests/test_options.py holds these keywords equal to the fields of Options
    given, own = locals(), ("model", "amount", "values", "methods", "progress")
    # a mapping proxy cannot be sent to another process; Options has an empty mapping of its own
    options = {name: value for name, value in given.items() if name not in own and value is not _NOTHING}
    jobs = _jobs(amount, values, methods, options)
    loaded = load(model, input_shapes=jobs[0].input_shape)
    if isinstance(jobs[0].data, DataReader):
        arrays = read_all(jobs[0].data, input_specs_of(loaded))
        jobs = [replace(job, data=arrays) for job in jobs]
    progress("draw samples")
    drawn = {runs: needed_samples(loaded, job) for runs, job in {_runs(job): job for job in jobs}.items()}
    found = []
    for point, result in _in_parallel(model, amount, jobs, drawn, progress):
        found.append((point, result))
        progress(f"{len(found)} of {len(jobs)} points compressed: {point.method} at {point.value:g}")
    points, samples = [], next(iter(drawn.values())).verifying
    for point, result in found:
        progress(f"measure the latency of {point.method} at {point.value:g}")
        points.append(_timed(loaded, samples, point, result))
    return Curve(loaded.name, tuple(points))


def _jobs(
    amount: Amount, values: Sequence[float], methods: Sequence[str | Method], options: Mapping[str, Any]
) -> list[Options]:
    """Return the options of every point: every method at every amount."""
    if amount not in get_args(Amount):
        raise OptionError(f"a sweep goes over {', '.join(get_args(Amount))}, not {amount}")
    given: list[dict[str, Any]] = [{amount: value, "method": method} for method in methods for value in values]
    jobs = [Options(**options, **entry) for entry in given]
    if not jobs:
        raise OptionError("a sweep needs at least one amount and one method")
    return jobs


def _runs(job: Options) -> bool:
    """Return whether a point runs samples to decide or to solve: points that do draw the same samples."""
    return job.runs_samples


def _in_parallel(
    model: Source, amount: Amount, jobs: Sequence[Options], drawn: Mapping[bool, SampleSets], progress: Progress
) -> Iterable[tuple[Point, bytes | None]]:
    """Yield the points in order, as they are done."""
    import joblib

    at_once = max(1, joblib.effective_n_jobs())
    progress(f"compress {len(jobs)} points, {min(at_once, len(jobs))} at once")
    given = {runs: samples if samples.nbytes <= TRAVELLING else None for runs, samples in drawn.items()}
    # backends of others may hand over results only when all are there
    streams = joblib.parallel.get_active_backend()[0].supports_return_generator
    parallel = joblib.Parallel(return_as="generator" if streams else "list")
    found: Iterable[tuple[Point, bytes | None]] = parallel(
        joblib.delayed(_point)(model, amount, job, given[_runs(job)], at_once) for job in jobs
    )
    return found


def _point(
    source: Source, amount: Amount, options: Options, given: SampleSets | None, at_once: int
) -> tuple[Point, bytes | None]:
    """Return one point, not yet timed, with the result where it is small enough to travel.

    It is made on its share of the cores: `at_once` points are made side by side, and each would otherwise take all.
    """
    point = Point(options.method_name, amount, getattr(options, amount))
    model = load(source, input_shapes=options.input_shape, whole_heads=options.merges_heads)
    compression = Compression(model, options, samples=given, surveys=True)
    if compression.refusal is not None:
        return replace(point, refused=compression.refusal.text), None
    with sharing_cores(at_once):
        report = compression.attempt()
    if isinstance(report, Refused):
        return replace(point, refused=report.reason), None
    before, after, found = report.before, report.after, report.verification
    measured = replace(
        point,
        parameters=100 * after.parameters / max(1, before.parameters),
        macs=100 * after.macs / before.macs if before.macs and after.macs is not None else None,
        agreement=None if found is None or found.likely_agreement is None else found.likely_agreement.middle,
        cosine=None if found is None else found.cosine,
        relative_l2=None if found is None else found.relative_l2,
    )
    travels = weight_bytes(model) <= EXTERNAL_BYTES
    return measured, to_proto(model).SerializeToString() if travels else None


def _timed(original: Model, samples: Samples | None, point: Point, result: bytes | None) -> Point:
    """Return the point with both latencies, where both models can be run."""
    if result is None or samples is None:
        return point
    try:
        found = measure_latency(original.source, result, samples, timing_seconds=_TIMING_SECONDS)
    except NotRunnable:
        return point
    return replace(point, before_ms=found.before_ms, after_ms=found.after_ms)
