"""Many amounts instead of one: how size, fidelity and latency go together, and where the knee is.

    curve = sweep("in.onnx", "ratio", (0.1, 0.2, 0.3), methods=("auto", "l1"))
    curve.knees["auto"].value                        0.2

Every point is compressed by itself, in parallel where joblib says so: by `with joblib.parallel_config(n_jobs=4)`, or on
a cluster by `joblib.parallel_config(backend="dask")`; workers read a model given by path at that path. Latencies are
measured afterwards, one after the other, where the sweep was called: side by side they would disturb each other.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, get_args

from onnx_tropnnc.engine import SampleSets, compressing, draw_samples, exact_passes, finishing_passes, on_a_device
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import EXTERNAL_BYTES, Source, load, to_proto, weight_bytes
from onnx_tropnnc.graph.shapes import input_specs_of, shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.inputs.readers import DataReader, read_all
from onnx_tropnnc.merging.representatives import Method
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_manager import PassManager, Progress, silent
from onnx_tropnnc.passes import CompressChannels, VerifyOutputs
from onnx_tropnnc.running.cores import sharing_cores
from onnx_tropnnc.running.devices import running_on
from onnx_tropnnc.running.latency import measure_latency
from onnx_tropnnc.running.sessions import NotRunnable

__all__ = ["Amount", "Curve", "Point", "parse_sweep", "sweep"]

Amount = Literal["ratio", "threshold", "target_params", "target_macs"]
_MOST = 1000
TRAVELLING = 64 * 2**20
"""Bytes of samples that are drawn once for all points; where they are more, each point draws its own."""


@dataclass(frozen=True)
class Point:
    """What one method gives at one amount; sizes are percent of the original's, None where not known."""

    method: str
    amount: str
    value: float
    parameters: float | None = None
    macs: float | None = None
    agreement: float | None = None
    cosine: float | None = None
    relative_l2: float | None = None
    before_ms: float | None = None
    after_ms: float | None = None
    refused: str = ""
    """Why there is nothing here: a budget that cannot be reached."""

    @property
    def fidelity(self) -> float | None:
        """Percent of agreement; where no output is a row of scores, the cosine in percent."""
        return self.agreement if self.agreement is not None or self.cosine is None else 100 * self.cosine


@dataclass(frozen=True)
class Curve:
    """All points, method by method."""

    model: str
    points: tuple[Point, ...]

    @cached_property
    def knees(self) -> Mapping[str, Point]:
        """Per method the point after which fidelity falls fastest for what is saved, where there is one."""
        methods = dict.fromkeys(point.method for point in self.points)
        found = {method: _knee([p for p in self.points if p.method == method]) for method in methods}
        return {method: knee for method, knee in found.items() if knee is not None}

    def to_csv(self) -> str:
        """One line a point, with a heading."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [f.name for f in fields(Point)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(point) for point in self.points)
        return text.getvalue()


def sweep(
    model: Source,
    amount: Amount,
    values: Sequence[float],
    *,
    methods: Sequence[str | Method] = ("auto",),
    progress: Progress = silent,
    **options: Any,
) -> Curve:
    """The curve of a model; it is never changed, and nothing is written.

    Args:
        model: a path, the bytes of a file, or a ModelProto.
        amount: what `values` are: ratio, threshold, target_params or target_macs.
        values: the amounts.
        methods: the methods to draw a curve of.
        progress: called with what is being done.
        **options: other fields of `Options`.

    Raises:
        TropnncError: the model or an option is refused.
    """
    jobs = _jobs(amount, values, methods, options)
    loaded = load(model, input_shapes=jobs[0].input_shape)
    if isinstance(jobs[0].data, DataReader):
        arrays = read_all(jobs[0].data, input_specs_of(loaded))
        jobs = [replace(job, data=arrays) for job in jobs]
    progress("draw samples")
    drawn = {runs: draw_samples(loaded, job) for runs, job in {_runs(job): job for job in jobs}.items()}
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
    """Every method at every amount."""
    if amount not in get_args(Amount):
        raise OptionError(f"a sweep goes over {', '.join(get_args(Amount))}, not {amount}")
    given: list[dict[str, Any]] = [{amount: value, "method": method} for method in methods for value in values]
    jobs = [Options(**entry, **options) for entry in given]
    if any(job.demanding for job in jobs):
        raise OptionError("--sweep shows what every amount gives; leave out --min-agreement and --min-cosine")
    if not jobs:
        raise OptionError("a sweep needs at least one amount and one method")
    return [replace(job, round_to=job.rounding) for job in jobs]


def _runs(job: Options) -> bool:
    """Whether a point runs samples to decide or to solve: all that its samples depend on."""
    return job.selects or job.solves


def _in_parallel(
    model: Source, amount: Amount, jobs: Sequence[Options], drawn: Mapping[bool, SampleSets], progress: Progress
) -> Iterable[tuple[Point, bytes | None]]:
    """The points in order, as they are done."""
    import joblib

    at_once = max(1, joblib.effective_n_jobs())
    progress(f"compress {len(jobs)} points, {min(at_once, len(jobs))} at once")
    given = {runs: samples if samples.nbytes <= TRAVELLING else None for runs, samples in drawn.items()}
    # backends of others may hand over results only when all are there
    streams = joblib.parallel.get_active_backend()[0].supports_return_generator
    parallel = joblib.Parallel(return_as="generator" if streams else "list")
    found: Iterable[tuple[Point, bytes | None]] = parallel(
        joblib.delayed(_alone)(model, amount, job, given[_runs(job)], at_once) for job in jobs
    )
    return found


def parse_sweep(text: str) -> tuple[Amount, tuple[float, ...]]:
    """`0.1:0.7:0.1` as ("ratio", (0.1, ..., 0.7)); `target-params=0.9:0.3:0.1` says of what, and may go down.

    >>> parse_sweep("target-macs=0.9:0.7:0.1")
    ('target_macs', (0.9, 0.8, 0.7))
    """
    name, _, numbers = text.rpartition("=")
    amount = next((a for a in get_args(Amount) if a == (name or "ratio").replace("-", "_")), None)
    try:
        first, last, step = (float(part) for part in numbers.split(":"))
    except ValueError:
        step = 0.0
    if amount is None or not abs(step) > 0:
        names = ", ".join(f"{a.replace('_', '-')}=" for a in get_args(Amount)[1:])
        raise OptionError(f"--sweep {text}: write A:B:STEP for ratios, as in 0.1:0.7:0.1, or put {names} before it")
    count = abs(last - first) / abs(step)
    if count > _MOST:
        raise OptionError(f"--sweep {text}: these are more than {_MOST} points")
    towards = abs(step) if last >= first else -abs(step)
    return amount, tuple(round(first + i * towards, 10) for i in range(int(count + 1e-9) + 1))


def _alone(
    source: Source, amount: Amount, options: Options, given: SampleSets | None, at_once: int
) -> tuple[Point, bytes | None]:
    """A point on its share of the cores: so many are made at once, and each would otherwise take them all."""
    options, _ = on_a_device(options)
    with sharing_cores(at_once), running_on(options.device):
        return _point(source, amount, options, given)


def _point(source: Source, amount: Amount, options: Options, given: SampleSets | None) -> tuple[Point, bytes | None]:
    """One compression, compared with the original but not timed; with the result where it is small enough to travel."""
    point = Point(options.method_name, amount, getattr(options, amount))
    model = load(source, input_shapes=options.input_shape, whole_heads=options.merges_heads)
    before = size_of(model, shapes_of(model))
    samples = given or draw_samples(model, options)
    PassManager(exact_passes(options, samples))(model)
    try:
        step = CompressChannels(options, samples.solving, before)
        PassManager([compressing(step, samples.verifying), *finishing_passes()])(model)
    except OptionError as error:
        return replace(point, refused=str(error)), None
    found = VerifyOutputs(samples.verifying, timing_seconds=0.0, seed=options.seed).compare(model)
    after = size_of(model, shapes_of(model))
    travels = weight_bytes(model) <= EXTERNAL_BYTES
    measured = replace(
        point,
        parameters=100 * after.parameters / max(1, before.parameters),
        macs=100 * after.macs / before.macs if before.macs and after.macs is not None else None,
        agreement=found.agreement,
        cosine=found.cosine,
        relative_l2=found.relative_l2,
    )
    return measured, to_proto(model).SerializeToString() if travels else None


def _timed(original: Model, samples: Samples | None, point: Point, result: bytes | None) -> Point:
    """The point with both latencies, where both models can be run."""
    if result is None or samples is None:
        return point
    try:
        found = measure_latency(original.source, result, samples, timing_seconds=0.5)
    except NotRunnable:
        return point
    return replace(point, before_ms=found.before_ms, after_ms=found.after_ms)


def _knee(points: Sequence[Point]) -> Point | None:
    """The point furthest above the line from the original (all of its size, all of its fidelity) to the smallest."""
    placed = [(p.parameters, p.fidelity, p) for p in points if p.parameters is not None and p.fidelity is not None]
    if len(placed) < 2:
        return None
    low_size, low_fidelity, last = min(placed, key=lambda entry: entry[0])
    wide, high = 100.0 - low_size, 100.0 - low_fidelity
    if wide <= 0 or high <= 0:
        return None
    gains = [((fidelity - low_fidelity) / high - (size - low_size) / wide, p) for size, fidelity, p in placed]
    gain, knee = max(gains, key=lambda entry: entry[0])
    return knee if gain > 0 and knee is not last else None
