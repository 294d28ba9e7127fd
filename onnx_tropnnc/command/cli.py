"""The command line: arguments in, report out, exit code.

    0  done
    1  verification is below what was asked; nothing written unless --keep
    2  bad usage or bad input; nothing written

Only click is imported before the arguments are understood: `--help` must not wait for onnx.
"""

import importlib.metadata
import shlex
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_tropnnc.command.progress import ProgressLine

if TYPE_CHECKING:
    from rich.console import Console

    from onnx_tropnnc.graph.model import Model
    from onnx_tropnnc.options import Options
    from onnx_tropnnc.report import Report

__all__ = ["command", "main"]

_EPILOG = """\b
Examples:
  onnx-tropnnc in.onnx out.onnx --ratio 0.3
  onnx-tropnnc in.onnx --inspect
  onnx-tropnnc in.onnx --sweep 0.1:0.7:0.1 --report curve.png
  onnx-tropnnc in.onnx out.onnx --ratio 0.5 --data samples.npz --min-agreement 98
"""


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("source", metavar="IN.onnx")
@click.argument("target", metavar="[OUT.onnx]", required=False)
@click.option("--ratio", type=float, help="Fraction of channels to remove from each group, in [0, 1).")
@click.option("--target-params", type=float, metavar="F", help="Keep this fraction of the parameters.")
@click.option("--target-macs", type=float, metavar="F", help="Keep this fraction of the multiply-accumulates.")
@click.option("--target-latency", type=float, metavar="F", help="Keep this fraction of the latency, measured here.")
@click.option("--lossless", is_flag=True, help="Only what is exact: equal, proportional, constant, unread channels.")
@click.option("--max-drop", type=float, metavar="P", help="Lose at most P points of top-1 agreement.")
@click.option("--apply-plan", metavar="PLAN.json", help="Replay the merge maps that --save-plan wrote.")
@click.option("--threshold", type=float, help="Merge what is closer than this: non-uniform, clustering methods only.")
@click.option("--variant", help="What the threshold is scaled by: raw, 1 or 2.  [default: raw; 2 with budgets]")
@click.option(
    "--sweep", metavar="A:B:STEP", help="A curve over ratios (or target-params=A:B:STEP); several --method; no OUT."
)
@click.option("--jobs", type=int, default=1, show_default=True, help="Of --sweep: so many points at once.")
@click.option("--method", multiple=True, help="How channels are merged; see the README.  [default: auto]")
@click.option("--clustering", help="kmeans (the paper's) or ward; by default ward for --method auto.")
@click.option("--features", help="What the clustering looks at: weights, fused, cosine, shifted or cup.")
@click.option("--representative", default="mean", show_default=True, help="Of tropnnc's incoming weights: mean or sum.")
@click.option("--linkage", default="ward", show_default=True, help="Of --threshold: ward, complete or average.")
@click.option("--iterations", type=int, default=3, show_default=True, help="Of --method tropnnc-iterative.")
@click.option("--sign-fixed", is_flag=True, help="With tropnnc-iterative: the variant of the paper's Appendix A.6.")
@click.option("--ratio-for", multiple=True, metavar="PATTERN=R", help="Another ratio for nodes of these names.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only groups made by nodes of these names.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No groups made by nodes of these names.")
@click.option(
    "--ties", default="auto", show_default=True, help="Residual streams: keep, merge, or auto (with budgets)."
)
@click.option("--heads", default="keep", show_default=True, help="Attention heads: keep them all, or merge whole ones.")
@click.option(
    "--round-to",
    metavar="N|auto",
    help="Round channel counts up to a multiple (1); auto: what onnxruntime is fast at here, measured; the default of "
    "--target-latency.",
)
@click.option("--reconstruct", default="auto", show_default=True, help="auto, off, synthetic or data.")
@click.option("--no-refit", is_flag=True, help="Solve consumers alone: quicker, less accurate.")
@click.option("--data", metavar="PATH", help="Samples: X.npz (an array per input, `labels`) or a folder of .npy files.")
@click.option("--input-shape", multiple=True, metavar="NAME:1,3,224,224", help="Shape of a dynamic input.")
@click.option("--input-range", multiple=True, metavar="NAME:LOW,HIGH", help="Values that an input takes.")
@click.option("--min-agreement", type=float, metavar="PERCENT", help="Top-1 agreement that the result must reach.")
@click.option("--min-cosine", type=float, metavar="C", help="Cosine of the outputs that the result must reach.")
@click.option("--no-verify", is_flag=True, help="Do not compare the result with the original.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--memory", type=float, default=1.5, show_default=True, metavar="GB", help="For activations, while solving."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--external-data", is_flag=True, help="Write weights beside the model (always done over 1.8 GB).")
@click.option("--save-plan", metavar="PLAN.json", help="Write the merge maps.")
@click.option(
    "--report",
    multiple=True,
    metavar="FILE",
    help="What was done: .json, or .html for people; of --sweep: .csv, .png, .svg.",
)
@click.option("--bound-radius", type=float, metavar="R", help="State error bounds for inputs of up to this length.")
@click.option("--inspect", is_flag=True, help="Print the channel groups and why some cannot change; write nothing.")
@click.option("--keep", is_flag=True, help="Write the result even where verification is below what was asked.")
@click.option("--quiet", is_flag=True, help="Print errors and warnings only.")
@click.version_option(importlib.metadata.version("onnx-tropnnc"), prog_name="onnx-tropnnc")
def command(**arguments: Any) -> int:
    """Make a trained ONNX model smaller and faster, without training code or data.

    Channels that do nearly the same thing are merged (TropNNC), shapes are rewritten, and the result is compared with
    the original through ONNX Runtime. IN.onnx is never changed; OUT.onnx appears whole or not at all.
    """
    from onnx_tropnnc.errors import TropnncError

    try:
        if arguments["sweep"] is not None:
            return _sweep(arguments)
        return _inspect(arguments) if arguments["inspect"] else _compress(arguments)
    except TropnncError as error:
        raise click.ClickException(str(error)) from error


def main() -> None:
    """Entry point of `onnx-tropnnc`."""
    try:
        sys.exit(command.main(standalone_mode=False))
    except click.exceptions.Abort:
        click.echo("interrupted; nothing was written", err=True)
        sys.exit(130)
    except click.ClickException as error:
        click.echo(f"onnx-tropnnc: {' '.join(error.format_message().split())}", err=True)
        sys.exit(2)


def _compress(arguments: dict[str, Any]) -> int:
    from onnx_tropnnc.changes import Merged
    from onnx_tropnnc.command.outputs import checked, digests, write_reports
    from onnx_tropnnc.deciding.plans import plan_text
    from onnx_tropnnc.engine import compress_model
    from onnx_tropnnc.errors import OptionError
    from onnx_tropnnc.graph.model_io import check_output, load, save
    from onnx_tropnnc.report import Reproduction

    if arguments["target"] is None:
        raise OptionError("OUT.onnx is missing; say where to write, or use --inspect")
    options = _options(arguments)
    target = check_output(arguments["target"], arguments["source"])
    reports = checked("--report", arguments["report"], (".json", ".html"))
    plans = checked("--save-plan", filter(None, (arguments["save_plan"],)), (".json",))
    model = load(arguments["source"], input_shapes=options.input_shape, whole_heads=options.merges_heads)
    with ProgressLine(arguments["quiet"]) as progress:
        report = compress_model(model, options, progress.step)
        if report.passed or arguments["keep"]:
            progress.step(f"write {target}")
            save(model, target, external_data=arguments["external_data"])
    if reports:
        files = (*digests("input", Path(arguments["source"])), *digests("output", target))
        report = replace(report, reproduction=Reproduction(shlex.join(["onnx-tropnnc", *sys.argv[1:]]), files))
        write_reports(report, reports)
    for path in plans:
        path.write_text(plan_text({change.group: change.merge_map for change in report.of(Merged)}))
    _tell(report, target, model, arguments)
    return 0 if report.passed else 1


def _sweep(arguments: dict[str, Any]) -> int:
    import joblib

    from onnx_tropnnc.command.outputs import checked, write_curve
    from onnx_tropnnc.command.terminal import print_curve
    from onnx_tropnnc.curves import parse_sweep, sweep
    from onnx_tropnnc.errors import OptionError

    amount, values = parse_sweep(arguments["sweep"])
    if _amounts(arguments) or arguments["target"] is not None:
        raise OptionError(
            "--sweep writes no model and goes over amounts by itself; leave out OUT.onnx and other amounts"
        )
    paths = checked("--report", arguments["report"], (".csv", ".png", ".svg"))
    methods = arguments["method"] or ("auto",)
    options = _options(arguments | {amount: values[0], "method": methods[:1]})
    others = {field.name: getattr(options, field.name) for field in fields(options)}
    for name in (amount, "method"):
        del others[name]
    with joblib.parallel_config(n_jobs=arguments["jobs"]), ProgressLine(arguments["quiet"]) as progress:
        curve = sweep(arguments["source"], amount, values, methods=methods, progress=progress.step, **others)
    write_curve(curve, paths)
    if not arguments["quiet"]:
        print_curve(curve, _console())
    return 0


def _method(arguments: dict[str, Any]) -> str:
    from onnx_tropnnc.errors import OptionError

    methods = arguments["method"]
    if len(methods) > 1:
        raise OptionError("--method is given more than once; that is for --sweep")
    return methods[0] if methods else "auto"


def _options(arguments: dict[str, Any]) -> "Options":
    from onnx_tropnnc.deciding.plans import load_plan
    from onnx_tropnnc.errors import OptionError
    from onnx_tropnnc.inputs.batches import parse_input_range, parse_input_shape
    from onnx_tropnnc.options import Options

    ratios, rounding = [], arguments["round_to"]
    for text in arguments["ratio_for"]:
        pattern, _, ratio = text.rpartition("=")
        try:
            ratios.append((pattern, float(ratio)))
        except ValueError:
            raise OptionError(f"--ratio-for {text}: must be PATTERN=R, as in --ratio-for '/layer1/*=0.2'") from None
    as_given = {field.name: arguments[field.name] for field in fields(Options) if field.name in arguments}
    understood = {
        "round_to": int(rounding) if rounding is not None and rounding.isdecimal() else rounding,
        "method": _method(arguments),
        "ratio_for": tuple(ratios),
        "plan": None if arguments["apply_plan"] is None else load_plan(arguments["apply_plan"]),
        "input_shape": dict(parse_input_shape(text) for text in arguments["input_shape"]),
        "input_range": dict(parse_input_range(text) for text in arguments["input_range"]),
        "refit": not arguments["no_refit"],
        "verify": not arguments["no_verify"],
    }
    return Options(**(as_given | understood))


def _amounts(arguments: dict[str, Any]) -> list[str]:
    """The options given that say how much to remove."""
    from onnx_tropnnc.options import amounts_given

    return amounts_given(arguments | {"plan": arguments["apply_plan"]})


def _inspect(arguments: dict[str, Any]) -> int:
    from onnx_tropnnc.analysis.channels import find_channel_groups
    from onnx_tropnnc.analysis.coverage import coverage_of
    from onnx_tropnnc.analysis.unreached import unreached_layers
    from onnx_tropnnc.command.terminal import print_coverage, print_groups
    from onnx_tropnnc.graph.model_io import load
    from onnx_tropnnc.graph.shapes import shapes_of
    from onnx_tropnnc.pass_manager import Pass, PassManager
    from onnx_tropnnc.passes import (
        DequantizeWeights,
        FoldBatchNorm,
        InlineFunctions,
        NameBodiesApart,
        PlainConstants,
        PlainShapes,
    )

    ratio = arguments["ratio"] if _amounts(arguments) else 0.0
    options = _options(arguments | {"ratio": ratio, "min_agreement": None, "min_cosine": None})
    model = load(arguments["source"], input_shapes=options.input_shape, whole_heads=options.merges_heads)
    plain: list[Pass] = [InlineFunctions(), NameBodiesApart(), PlainConstants(), PlainShapes(), FoldBatchNorm()]
    PassManager([*plain, DequantizeWeights()])(model)
    shapes = shapes_of(model)
    groups = find_channel_groups(model, shapes)
    selection = options.selection
    print_groups(groups, [selection.refusal(group) for group in groups], unreached_layers(model), _console())
    print_coverage(coverage_of(model, shapes, groups, selection.refusal), _console())
    if options.ratio != 0.0:
        from onnx_tropnnc.engine import compress_model

        report = compress_model(model, replace(options, verify=False))
        _tell(report, None, model, arguments | {"quiet": False})
    return 0


def _console() -> "Console":
    """Standard output; in a pipe as wide as it likes, without colour."""
    from rich.console import Console

    return Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=200, color_system=None)


def _tell(report: "Report", target: Path | None, model: "Model", arguments: dict[str, Any]) -> None:
    """The report on standard output; warnings and failures on standard error too when quiet."""
    from onnx_tropnnc.changes import Note
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
        return
    print_report(report, _console())
    if target is not None:
        written = report.passed or arguments["keep"]
        click.echo(f"wrote {target}" if written else f"nothing written to {target}; --keep writes it all the same")
