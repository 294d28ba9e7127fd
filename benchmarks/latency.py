"""Size, multiply-accumulates and measured speed-up of every model in a folder, those that did not get faster too.

    python benchmarks/latency.py FOLDER [--ratio 0.3 0.5] [--target-macs 0.8] [--round-to auto] [--threads 1]
                                        [--seconds 6] [--cpu-time] [--only NAME ..] [--results FOLDER [--make]]

Channels are decided on as the command does with `--blocks keep`, and merged, but no weights are fitted: these do not
change how long a model takes. Whole residual blocks stay, because the command removes them only after it has fitted and
compared two results. Results are timed through ONNX Runtime in turn with their originals, one sample a run unless the
model says otherwise; medians, and quartiles' spread. The last column is the share of the multiply-accumulates' saving
that became milliseconds: 1 where a model with 70 % of the multiply-accumulates takes 70 % of the time. Prints one
Markdown table, a row as soon as it is measured.

With `--results` the compressed models are kept in that folder, and those that are there are not made again; `--make`
makes them and measures nothing. So they can be made on a busy machine, and measured once it is at rest.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from onnx_tropnnc.bisection import Refused
from onnx_tropnnc.chosen_rewrites import narrows_queries, rotates_streams, rotates_values
from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.model_io import load, save, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import Size, size_of
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_lists import exact_passes, verifying_pass
from onnx_tropnnc.pass_manager import PassManager, silent
from onnx_tropnnc.running.cores import steady_arithmetic
from onnx_tropnnc.running.latency import Latency, measure_latency
from onnx_tropnnc.sample_sets import draw_samples
from onnx_tropnnc.searching.trials import Trials

COLUMNS = ("model", "amount", "weights MB", "after", "MACs M", "after", "ms", "after", "speed-up", "share")


def amount_of(options: Options) -> str:
    """Return how much is removed, as the table shows it."""
    return f"ratio {options.ratio:g}" if options.ratio is not None else f"MACs {options.target_macs:g}"


def made(path: Path, every: Sequence[Options], folder: Path) -> Iterator[tuple[Options, Path | Refused]]:
    """Yield for each options the path of the compressed model; those that are not there are made."""
    by_rewrites: dict[tuple[bool, ...], Trials] = {}
    for options in every:
        target = folder / f"{path.stem} {amount_of(options)}.onnx"
        if not target.exists():
            # what samples say of a model serves all amounts for which streams and attention are rewritten alike
            rewrites = rotates_streams(options), narrows_queries(options), rotates_values(options)
            trials = by_rewrites[rewrites] = by_rewrites.get(rewrites) or prepared(path, options)
            with steady_arithmetic():
                model = trials.merged(options)
            if isinstance(model, Refused):
                yield options, model
                continue
            save(model, target)
        yield options, target


def prepared(path: Path, options: Options) -> Trials:
    """Return what decides on the model at this path and merges its channels."""
    model = load(path)
    samples = draw_samples(model, options)
    model.input_shapes = samples.input_shapes or model.input_shapes
    before = size_of(model, shapes_of(model))
    PassManager(exact_passes(options, samples, dequantizes=True))(model)
    return Trials(Decider(model, samples.solving, before), verifying_pass(options, samples), silent)


def row(path: Path, result: Path, timed: Callable[..., Latency]) -> tuple[str, ...]:
    """Return the cells of a result behind its name and amount."""
    samples = samples_for(load(path), count=2)
    shapes = dict(samples.run_shapes)
    models = [load(source, input_shapes=shapes) for source in (path, result)]
    before, after = (size_of(model, shapes_of(model)) for model in models)
    sizes = [f"{size.weight_bytes / 1e6:.2f}" for size in (before, after)]
    macs = ["" if size.macs is None else f"{size.macs / 1e6:.1f}" for size in (before, after)]
    try:
        found = timed(path, to_proto(models[1]), samples)
    except NotRunnable as error:
        return (*sizes, *macs, "", "", "", f"not run: {error}")
    speed_up = f"{found.before_ms / found.after_ms:.2f}"
    return (*sizes, *macs, *_milliseconds(found), speed_up, _share(before, after, found))


def _share(before: Size, after: Size, found: Latency) -> str:
    """Return which share of the multiply-accumulates' saving became milliseconds; nothing where none were saved."""
    if not before.macs or after.macs is None or after.macs == before.macs:
        return ""
    return f"{(1 - found.after_ms / found.before_ms) / (1 - after.macs / before.macs):.2f}"


def _milliseconds(found: Latency) -> tuple[str, str]:
    pairs = (found.before_ms, found.before_spread_ms), (found.after_ms, found.after_spread_ms)
    first, second = (f"{median:.3g} ± {spread / 2:.2g}" for median, spread in pairs)
    return first, second


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ratio", type=float, nargs="*", default=[0.3, 0.5])
    parser.add_argument("--target-macs", type=float, nargs="*", default=[0.8])
    parser.add_argument("--round-to", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the one thread, for a busy machine")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--results", type=Path, help="where the compressed models are kept")
    parser.add_argument("--make", action="store_true", help="make the compressed models, and measure nothing")
    given = parser.parse_args()
    if given.cpu_time and given.threads != 1:
        parser.error("--cpu-time counts one thread; leave out --threads")
    if given.make and given.results is None:
        parser.error("--make needs --results")
    clock = time.thread_time if given.cpu_time else time.perf_counter
    timed = partial(measure_latency, threads=given.threads, timing_seconds=given.seconds, clock=clock)
    rounding = int(given.round_to) if given.round_to.isdecimal() else given.round_to
    plain = Options(ratio=0, round_to=rounding)
    amounts = [replace(plain, ratio=ratio) for ratio in given.ratio]
    amounts += [replace(plain, ratio=None, target_macs=share) for share in given.target_macs]
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.results or Path(scratch)
        folder.mkdir(exist_ok=True)
        for path in sorted(given.folder.glob("*.onnx")):
            if given.only and path.stem not in given.only:
                continue
            for options, result in made(path, amounts, folder):
                if isinstance(result, Refused):
                    cells: tuple[str, ...] = (*[""] * 7, result.reason)
                else:
                    cells = () if given.make else row(path, result, timed)
                print("| " + " | ".join((path.stem, amount_of(options), *cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
