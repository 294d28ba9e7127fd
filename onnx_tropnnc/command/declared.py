"""Declare every option of the command, in the groups and the order in which `--help` shows them.

GROUPS["How"][0].opts             ["--method"]
Grouped(..., params=parameters())                a command whose --help has a heading for each group

Only click is imported here: `--help` must not wait for numpy or onnx.
"""

from collections.abc import Mapping
from typing import get_args

import click
from click.shell_completion import CompletionItem

from onnx_tropnnc.choices import Features, MethodName, RoundingPreset
from onnx_tropnnc.command.arguments import option

__all__ = ["GROUPS", "Grouped", "parameters"]


def _files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete names of files, which click does not do for plain text."""
    return [CompletionItem(incomplete, type="file")]


GROUPS: Mapping[str, tuple[click.Option, ...]] = {
    "How much to remove (give exactly one)": (
        option(
            "--ratio",
            metavar="R",
            help="Remove this fraction of the channels, in [0, 1), spread over the layers so that outputs change "
            "least; it leaves as many multiply-accumulates as the same fraction of every layer.",
        ),
        option("--target-params", metavar="F", help="Keep this fraction of the parameters, in (0, 1]."),
        option("--target-macs", metavar="F", help="Keep this fraction of the multiply-accumulates, in (0, 1]."),
        option(
            "--target-latency", metavar="F", help="Keep this fraction of the milliseconds, measured on this machine."
        ),
        option(
            "--max-drop",
            metavar="P",
            help="Remove as much as possible while top-1 agreement falls by at most P points.",
        ),
        option(
            "--lossless", help="Remove only what changes no output: equal, proportional, constant, unread channels."
        ),
        option(
            "--threshold",
            metavar="T",
            help="Merge channels that are closer to each other than this distance; for methods that cluster.",
        ),
        option("--apply-plan", "plan", metavar="PLAN.json", help="Merge as in a plan that --save-plan wrote."),
        click.Option(
            ("--sweep",),
            metavar="A:B:STEP",
            help="Try several ratios (or target-params=A:B:STEP, ...) and print the curve; takes several --method and "
            "no OUT.onnx.",
        ),
    ),
    "How": (
        click.Option(
            ("--method",),
            multiple=True,
            metavar="NAME",
            help=f"How channels are chosen or merged: {', '.join(get_args(MethodName))}, or an installed plugin.  "
            "[default: auto]",
        ),
        option(
            "--reconstruct",
            help="Fit the layers that read merged channels on your samples (data), on made-up ones (synthetic), on "
            "both (auto), or not at all (off).",
        ),
        option(
            "--refit/--no-refit", help="Also fit each fitted layer jointly with the layers before it.  [default: refit]"
        ),
        option(
            "--effort",
            help="How long all weights learn from the original after the layers were fitted: not at all, about one "
            "minute, or ten.",
        ),
        option(
            "--round-to",
            metavar="N|NAME",
            help="Round channel counts up to a multiple of N, or to what a runtime is fast at: auto (this machine), "
            f"{', '.join(get_args(RoundingPreset)[1:])}; 1: do not round.",
        ),
    ),
    "Which layers": (
        option("--exclude", metavar="PATTERN", help="Keep all channels of layers whose names match; may be repeated."),
        option("--include", metavar="PATTERN", help="Change only layers whose names match; may be repeated."),
        option("--uniform", help="Remove the same fraction of every layer, instead of spreading --ratio."),
        option("--ratio-for", metavar="PATTERN=R", help="Use another ratio for layers whose names match."),
        option(
            "--ties",
            help="Keep or merge channels that residual connections add to others; auto: merge them with a budget.",
        ),
        option(
            "--blocks", help="Remove whole residual blocks where the result is closer to the original so, or keep all."
        ),
        option(
            "--streams",
            help="Rotate the residual streams of transformers, so that channels of them can be removed, or keep "
            "them; auto: rotate them with a budget.",
        ),
        option(
            "--queries",
            help="Make queries and keys of attention narrower, or keep them; auto: narrow them with a budget.",
        ),
        option(
            "--factorize",
            help="With a budget, replace large weight matrices by two smaller factors where that costs less error.",
        ),
        option("--heads", help="Keep the number of attention heads, or remove whole heads too."),
    ),
    "Samples": (
        option(
            "--data",
            metavar="PATH",
            help="Your samples: X.npz (an array per input, and `labels`) or a folder of .npy files.  [default: made up "
            "from the model]",
            completes=_files,
        ),
        option(
            "--input-shape",
            metavar="NAME:1,3,224,224",
            help="Shape of an input whose dimensions the model leaves open, where no samples give it.",
        ),
        option("--input-range", metavar="NAME:LOW,HIGH", help="Range of an input's values, for made-up samples."),
    ),
    "Checks": (
        option(
            "--min-agreement",
            metavar="PERCENT",
            help="Restore channels until top-1 agreement is this high; fail if it never is.",
        ),
        option(
            "--min-cosine",
            metavar="C",
            help="Restore channels until the cosine of every output is this high; fail if it never is.",
        ),
        option(
            "--max-latency",
            metavar="F",
            help="Fail if the result takes more than this fraction of the original's time.",
        ),
        option("--verify/--no-verify", help="Compare the result with the original.  [default: verify]"),
        click.Option(("--keep",), is_flag=True, help="Write the result even where one of these checks fails."),
    ),
    "Output": (
        click.Option(
            ("--inspect",), is_flag=True, help="Print what may change and what may not, and why; write no model."
        ),
        click.Option(
            ("--report",),
            multiple=True,
            metavar="FILE",
            shell_complete=_files,
            help="Write what was done (or found by --inspect) as .json or .html; with --sweep .csv, .html, .png or "
            ".svg.",
        ),
        click.Option(
            ("--save-plan",),
            metavar="PLAN.json",
            shell_complete=_files,
            help="Write which channels were merged, for --apply-plan.",
        ),
        click.Option(
            ("--external-data",), is_flag=True, help="Write weights beside the model (always done over 1.8 GB)."
        ),
        click.Option(("--quiet",), is_flag=True, help="Print warnings and errors only."),
        click.Option(
            ("--verbose",),
            is_flag=True,
            help="Print each step on standard error; with --inspect, print every layer of each group.",
        ),
    ),
    "Advanced": (
        option("--memory", metavar="GB", help="Gigabytes that samples and activations may take."),
        option("--device", help="Where to compute; auto: on CUDA where it can be used."),
        option("--seed", metavar="N", help="Seed of everything random; the same seed gives the same bytes."),
        click.Option(
            ("--jobs",),
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Number of points of a --sweep to compress in parallel.",
        ),
        option("--bound-radius", metavar="R", help="Print error bounds that hold for inputs of up to this length."),
        option("--clustering", help="How methods cluster channels.  [default: ward for auto, else kmeans]"),
        option(
            "--features",
            # All choices beside the option's name would be longer than a line of 80 columns.
            metavar="NAME",
            help=f"The vectors that a clustering compares: {', '.join(get_args(Features))}.  "
            "[default: weights; cup for cup]",
        ),
        option("--representative", help="How tropnnc combines the incoming weights of the channels of a cluster."),
        option("--linkage", help="Distance between clusters for --threshold."),
        option(
            "--variant",
            help="What multiplies --threshold: nothing (raw), the root of the vectors' dimension (1) or their mean "
            "length (2).  [default: raw; 2 with budgets]",
        ),
        option("--iterations", metavar="N", help="Number of iterations of tropnnc-iterative."),
        option("--sign-fixed", help="Use the variant of tropnnc-iterative in the paper's Appendix A.6."),
    ),
}
"""The options by group: what most people need stands first, what only papers compare stands last."""


def parameters() -> list[click.Parameter]:
    """Return the two file names and all options, as a command takes them."""
    source = click.Argument(("source",), metavar="IN.onnx", shell_complete=_files)
    target = click.Argument(("target",), metavar="[OUT.onnx]", required=False, shell_complete=_files)
    return [source, target, *(entry for options in GROUPS.values() for entry in options)]


class Grouped(click.Command):
    """A command whose `--help` lists options under the headings of GROUPS."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; one that is too many is named, with the option that people most often mean by it."""
        given, ctx.allow_extra_args = tuple(args), True
        if extra := super().parse_args(ctx, args):
            hint = f"; to keep the channels of a layer, write --exclude '{extra[0]}'" if "--keep" in given else ""
            ctx.fail(f"{extra[0]} is one argument too many: IN.onnx and OUT.onnx are given already{hint}")
        return extra

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group, then one for options that are in no group: --version and --help."""
        grouped = {entry for options in GROUPS.values() for entry in options}
        others = tuple(
            entry for entry in self.get_params(ctx) if isinstance(entry, click.Option) and entry not in grouped
        )
        for title, entries in (*GROUPS.items(), ("Help", others)):
            with formatter.section(title):
                formatter.write_dl([row for entry in entries if (row := entry.get_help_record(ctx)) is not None])
