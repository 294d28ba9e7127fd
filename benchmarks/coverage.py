"""How much of a model may become smaller at all: our channel groups beside onnxsim's structured pruning.

    python benchmarks/coverage.py MODEL.onnx [MODEL.onnx ...] [--reasons N]

Of all Conv, ConvTranspose, Gemm and MatMul weights (elements, and the multiply-accumulates that they take) the share
that stands in groups that may change, with residual streams (`--ties merge`) and without, as `--inspect` prints it.
onnxsim (pip install onnxsim==0.8.1) is asked to prune half of the folded model; a weight counts as reached where its
shape changed. Prints one Markdown table; --reasons adds what keeps the rest.
"""

import argparse
import math
from pathlib import Path

import onnx

from onnx_tropnnc.analysis.channels import find_channel_groups
from onnx_tropnnc.analysis.coverage import Coverage, coverage_of
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.pass_manager import PassManager
from onnx_tropnnc.passes import (
    DropCasts,
    FoldBatchNorm,
    FoldPositions,
    GroupFilter,
    InlineFunctions,
    NameBodiesApart,
    NarrowQueries,
    PlainConstants,
    PlainLayouts,
    PlainShapes,
    SimplifyNormalizations,
)

__all__ = ["covered", "folded", "onnxsim_share", "percent"]

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def folded(path: Path, *, whole_heads: bool = False, narrow: bool = False) -> Model:
    """Return the model with constants computed and BatchNormalization folded.

    `narrow` prepares residual streams, queries and keys, as `--streams rotate --queries narrow` does for `--inspect`.
    """
    model = load(path, whole_heads=whole_heads)
    plain = [InlineFunctions(), NameBodiesApart(), PlainConstants(), PlainShapes(), PlainLayouts(), DropCasts()]
    PassManager([*plain, FoldBatchNorm()])(model)
    if narrow:
        PassManager([FoldPositions(), SimplifyNormalizations(), NarrowQueries()])(model)
    return model


def covered(model: Model, ties: str) -> Coverage:
    """Return our coverage of a folded model."""
    shapes = shapes_of(model)
    return coverage_of(model, shapes, find_channel_groups(model, shapes), GroupFilter(ties=ties).refusal)


def onnxsim_share(model: Model) -> float | str:
    """Return the share of the layers' weights whose shape onnxsim's pruning changes, or why it does not run."""
    import onnxsim

    before = to_proto(model)
    try:
        after = onnxsim.apply_structured_pruning(to_proto(model), sparsity=0.5)
    except (ValueError, RuntimeError, KeyError, IndexError, AssertionError, TypeError) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:60]}"
    now, total, changed = _weights(after.graph), 0, 0
    for output, dims in _weights(before.graph).items():
        total += math.prod(dims)
        changed += math.prod(dims) * (now.get(output, dims) != dims)
    return changed / total if total else 0.0


def _weights(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Return each layer's weight dimensions by the name of its output; bodies of If, Loop and Scan included."""
    stored = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found: dict[str, tuple[int, ...]] = {}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                stored[node.output[0]] = tuple(attribute.t.dims)
            for body in (attribute.g, *attribute.graphs):
                found |= _weights(body)
        if node.op_type in LAYERS:
            dims = [stored[name] for name in node.input[1::-1] if len(stored.get(name, ())) > 1]
            found |= {node.output[0]: dims[0]} if dims else {}
    return found


def percent(share: float | str | None) -> str:
    """Return a share in percent, as the table shows it."""
    return "" if share is None else share if isinstance(share, str) else f"{100 * share:.1f}"


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--reasons", type=int, default=0, help="how many reasons to print below each row")
    arguments = parser.parse_args()
    print("Shares of the layers' weights in %.\n")
    print("| model | weights | ours | ours, multiply-accumulates | ours, --ties keep | onnxsim |")
    print("|" + " --- |" * 6)
    for path in arguments.models:
        model = folded(path)
        ours, kept = covered(model, "merge"), covered(model, "keep")
        row = path.stem, f"{ours.parameters:,}", percent(ours.share), percent(ours.macs_share), percent(kept.share)
        print(f"| {' | '.join(row)} | {percent(onnxsim_share(model))} |", flush=True)
        for reason, weights in list(ours.reasons.items())[: arguments.reasons]:
            print(f"    {100 * weights / ours.parameters:.1f} %: {reason[:160]}")


if __name__ == "__main__":
    main()
