"""Size, multiply-accumulates and measured speed-up of every model in a folder, those that did not get faster too.

    python benchmarks/latency.py FOLDER [--ratio 0.3 0.5] [--target-macs 0.7] [--round-to auto] [--threads 1]
                                        [--seconds 6] [--cpu-time] [--only NAME ..]

Models are compressed without reconstruction (weights do not change how long a model takes) and timed through ONNX
Runtime in turn with their originals, one sample a run unless the model says otherwise; medians, and quartiles' spread.
The last column is the share of the multiply-accumulates' saving that became milliseconds: 1 where a model with 70 % of
the multiply-accumulates takes 70 % of the time. Prints one Markdown table, a row as soon as it is measured.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from onnx_tropnnc.engine import Compression
from onnx_tropnnc.errors import NotRunnable, OptionError
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.sizes import Size
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.options import Options
from onnx_tropnnc.running.latency import Latency, measure_latency

COLUMNS = ("model", "amount", "weights MB", "after", "MACs M", "after", "ms", "after", "speed-up", "share")


def row(path: Path, options: Options, timed: Callable[..., Latency]) -> tuple[str, ...]:
    """Return one line of the table."""
    amount = f"ratio {options.ratio:g}" if options.ratio is not None else f"MACs {options.target_macs:g}"
    model = load(path)
    try:
        report = Compression(model, options).run()
    except OptionError as error:
        return (path.stem, amount, *[""] * 7, str(error))
    before, after = report.before, report.after
    sizes = [f"{size.weight_bytes / 1e6:.2f}" for size in (before, after)]
    macs = ["" if size.macs is None else f"{size.macs / 1e6:.1f}" for size in (before, after)]
    try:
        samples = samples_for(load(path), count=2)
        found = timed(path, to_proto(model), samples)
    except NotRunnable as error:
        return (path.stem, amount, *sizes, *macs, "", "", "", f"not run: {error}")
    speed_up = f"{found.before_ms / found.after_ms:.2f}"
    return (path.stem, amount, *sizes, *macs, *_milliseconds(found), speed_up, _share(before, after, found))


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
    parser.add_argument("--target-macs", type=float, nargs="*", default=[0.7])
    parser.add_argument("--round-to", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the one thread, for a busy machine")
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    if given.cpu_time and given.threads != 1:
        parser.error("--cpu-time counts one thread; leave out --threads")
    clock = time.thread_time if given.cpu_time else time.perf_counter
    timed = partial(measure_latency, threads=given.threads, timing_seconds=given.seconds, clock=clock)
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS), flush=True)
    for path in sorted(given.folder.glob("*.onnx")):
        if given.only and path.stem not in given.only:
            continue
        rounding = int(given.round_to) if given.round_to.isdecimal() else given.round_to
        quick = Options(ratio=0, round_to=rounding, reconstruct="off", verify=False)
        amounts = [replace(quick, ratio=ratio) for ratio in given.ratio]
        amounts += [replace(quick, ratio=None, target_macs=share) for share in given.target_macs]
        for options in amounts:
            cells = row(path, options, timed)
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
