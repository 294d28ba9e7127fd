"""The command line: understand arguments, have the engine do the work, and print its report.

Only click is imported before the arguments are understood: `--help` must not wait for numpy or onnx.
"""

import contextlib
import importlib.metadata
import inspect
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_tropnnc.command.arguments import options_of, spelled
from onnx_tropnnc.command.declared import Grouped, parameters
from onnx_tropnnc.command.interrupts import Interruption
from onnx_tropnnc.command.logs import configure_logs
from onnx_tropnnc.command.progress import ProgressLine
from onnx_tropnnc.errors import OptionError, OutputPathError, Setting, TropnncError
from onnx_tropnnc.option_rules import amounts_given

if TYPE_CHECKING:
    from rich.console import Console

    from onnx_tropnnc.report import Report

__all__ = ["command", "run"]

_EPILOG = """\b
Examples:
  onnx-tropnnc in.onnx out.onnx --ratio 0.3
  onnx-tropnnc in.onnx --inspect
  onnx-tropnnc in.onnx --sweep 0.1:0.7:0.1 --report curve.html
  onnx-tropnnc in.onnx out.onnx --target-macs 0.5 --data samples.npz
  onnx-tropnnc in.onnx out.onnx --max-drop 1 --report report.html
"""


@click.command(
    cls=Grouped,
    params=parameters(),
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(importlib.metadata.version("onnx-tropnnc"), prog_name="onnx-tropnnc")
@click.pass_obj
def command(interruption: Interruption | None, /, **arguments: Any) -> int:
    """Make a trained ONNX model smaller and faster, without training code or data.

    Removes the channels that the outputs need least, fits the weights that are left so that the layers compute nearly
    what they did, and compares both models in ONNX Runtime. IN.onnx is never changed; OUT.onnx is written completely or
    not at all.
    """
    from onnx_tropnnc.running.heap import map_large_arrays

    configure_logs(arguments["verbose"])
    map_large_arrays()
    interruption = interruption or Interruption()
    try:
        if arguments["sweep"] is not None:
            return _sweep(arguments, interruption)
        return _inspect(arguments, interruption) if arguments["inspect"] else _compress(arguments, interruption)
    except TropnncError as error:
        raise click.ClickException(error.spelled(partial(spelled, command))) from error
    except MemoryError as error:
        detail = f" ({error})" if str(error) else ""
        raise click.ClickException(f"out of memory{detail}; give a smaller --memory or --input-shape") from error


def run(interruption: Interruption | None = None) -> int:
    """Run the command with the arguments of the process and return its exit code.

    Args:
        interruption: where the command says which files it is to write.
    """
    try:
        code = command.main(standalone_mode=False, obj=interruption)
        sys.stdout.flush()
    except click.ClickException as error:
        click.echo(f"onnx-tropnnc: {' '.join(error.format_message().split())}", err=True)
        return 2
    except OSError as error:
        # a full disk behind standard output or standard error; Python would report it once more when it ends
        with open(os.devnull, "w") as nothing, contextlib.suppress(OSError):
            click.echo(f"onnx-tropnnc: cannot go on: {error.strerror or error}", err=True)
            for stream in (sys.stdout, sys.stderr):
                os.dup2(nothing.fileno(), stream.fileno())
        return 2
    return int(code or 0)


def _compress(arguments: dict[str, Any], interruption: Interruption) -> int:
    from onnx_tropnnc.command.outputs import checked, no_file_twice
    from onnx_tropnnc.engine import Compression
    from onnx_tropnnc.graph.model_io import load, save
    from onnx_tropnnc.graph.regular_files import check_output

    if arguments["target"] is None:
        raise OptionError("OUT.onnx is missing; say where to write, or use --inspect")
    options = options_of(arguments)
    target = check_output(arguments["target"], arguments["source"])
    reports = checked("report", arguments["report"], (".json", ".html"), arguments["source"])
    plans = checked("save_plan", filter(None, (arguments["save_plan"],)), (".json",), arguments["source"])
    no_file_twice((target, *reports, *plans))
    interruption.expect(target, *reports, *plans)
    model = load(arguments["source"], input_shapes=options.input_shape, whole_heads=options.merges_heads)
    with ProgressLine(arguments["quiet"], arguments["verbose"]) as progress:
        report = Compression(model, options, progress.step, times_layers=bool(reports)).run()
        if report.passed or arguments["keep"]:
            # The spinner goes on until the file is there: large models take seconds to write.
            progress.step(f"write {arguments['target']}")
            save(model, target, external_data=arguments["external_data"])
    try:
        _write_beside(report, reports, plans, Path(arguments["source"]), target)
    except OutputPathError as error:
        if target.is_file() and (report.passed or arguments["keep"]):
            raise OutputPathError("{}; {} was written", error, arguments["target"]) from error
        raise
    _tell(report, arguments["target"], arguments)
    return 0 if report.passed else 1


def _write_beside(report: "Report", reports: Sequence[Path], plans: Sequence[Path], source: Path, target: Path) -> None:
    """Write reports, with how to repeat the run, and plans."""
    from onnx_tropnnc.changes import Merged
    from onnx_tropnnc.command.outputs import digests, write_plan, write_reports
    from onnx_tropnnc.deciding.plans import plan_text
    from onnx_tropnnc.report import Reproduction

    if reports:
        files = (*digests("input", source), *digests("output", target))
        report = replace(report, reproduction=Reproduction(shlex.join(["onnx-tropnnc", *sys.argv[1:]]), files))
        write_reports(report, reports)
    write_plan(plan_text({change.group: change.merge_map for change in report.of(Merged)}), plans)


def _sweep(arguments: dict[str, Any], interruption: Interruption) -> int:
    import joblib

    from onnx_tropnnc.command.outputs import checked, write_curve
    from onnx_tropnnc.command.parsing import parse_sweep
    from onnx_tropnnc.command.terminal import print_curve
    from onnx_tropnnc.sweeps import sweep

    amount, values = parse_sweep(arguments["sweep"])
    if amounts_given(arguments) or arguments["target"] is not None:
        raise OptionError(
            "--sweep writes no model and goes over amounts by itself; leave out OUT.onnx and other amounts"
        )
    paths = checked("report", arguments["report"], (".csv", ".html", ".png", ".svg"), arguments["source"])
    interruption.expect(*paths)
    methods = arguments["method"] or ("auto",)
    options = options_of(arguments | {amount: values[0], "method": methods[:1]})
    if options.demanding or options.max_latency is not None:
        demands = Setting("min_agreement"), Setting("min_cosine"), Setting("max_latency")
        raise OptionError("a sweep shows what every amount gives; leave out {}, {} and {}", *demands)
    names = {field.name for field in fields(options)} & set(inspect.signature(sweep).parameters)
    others = {name: getattr(options, name) for name in names}
    # joblib starts as many processes as it is told to, even where there are fewer points
    jobs = min(arguments["jobs"], len(values) * len(methods))
    with (
        joblib.parallel_config(n_jobs=jobs),
        ProgressLine(arguments["quiet"], arguments["verbose"]) as progress,
    ):
        curve = sweep(arguments["source"], amount, values, methods=methods, progress=progress.step, **others)
    write_curve(curve, paths)
    if not arguments["quiet"]:
        print_curve(curve, _console())
    return 0


def _inspect(arguments: dict[str, Any], interruption: Interruption) -> int:
    from onnx_tropnnc.command.groups_table import print_table
    from onnx_tropnnc.command.inspection import inspection_facts
    from onnx_tropnnc.command.outputs import checked, no_file_twice, write_inspection
    from onnx_tropnnc.command.terminal import print_coverage, print_groups
    from onnx_tropnnc.engine import Compression
    from onnx_tropnnc.graph.model_io import load

    # Without an amount nothing is removed, and only the groups are of interest.
    ratio = arguments["ratio"] if amounts_given(arguments) else 0.0
    options = options_of(arguments | {"ratio": ratio, "min_agreement": None, "min_cosine": None, "max_latency": None})
    reports = checked("report", arguments["report"], (".json", ".html"), arguments["source"])
    no_file_twice(reports)
    interruption.expect(*reports)
    model = load(arguments["source"], input_shapes=options.input_shape, whole_heads=options.merges_heads)
    found = Compression(model, options).inspect()
    facts = inspection_facts(arguments["source"], found)
    write_inspection(facts, reports)
    if arguments["verbose"]:
        print_groups(found.groups, found.refusals, found.unreached, _console())
        print_coverage(found.coverage, _console())
    elif not arguments["quiet"]:
        print_table(facts, _console())
    if options.ratio != 0.0:
        report = Compression(model, replace(options, verify=False)).run()
        _tell(report, None, arguments | {"quiet": False})
    return 0


def _console() -> "Console":
    """Return standard output for printing: with colour on a terminal, without in a pipe."""
    from rich.console import Console

    # A pipe has no width that tables could be fitted to; 200 columns hold every table that is printed here.
    return Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=200, color_system=None)


def _tell(report: "Report", target: str | None, arguments: dict[str, Any]) -> None:
    """Print the report on standard output; with `quiet`, only warnings and failures, on standard error."""
    from onnx_tropnnc.changes import Kept, Merged, Note
    from onnx_tropnnc.command.terminal import print_report
    from onnx_tropnnc.running.sessions import runtime_conflict

    if conflict := runtime_conflict():
        click.echo(f"warning: {conflict}", err=True)
    if arguments["quiet"]:
        for note in report.of(Note):
            if note.level == "warning":
                click.echo(str(note), err=True)
        for shortfall in report.verification.shortfalls if report.verification else ():
            click.echo(f"FAILED: {shortfall}", err=True)
        # a pipeline that asked for less gets a file and exit code 0, and would not know that it is as large as before
        if not report.of(Merged) and any(kept.reason.kind == "undone" for kept in report.of(Kept)):
            click.echo(f"warning: {report.verdict.text}", err=True)
        return
    print_report(report, _console())
    if target is not None:
        written = report.passed or arguments["keep"]
        click.echo(f"wrote {target}" if written else f"nothing written to {target}; --keep writes it all the same")
        click.echo(report.verdict.line)
