"""Budgets spent on inner channels alone and on residual streams too: accuracy without data.

    python benchmarks/residual_streams.py MODEL.onnx DATA.npz [--keep 0.8 0.7 0.6 0.5 0.4 0.3]

DATA.npz is as for fidelity.py. Every size is asked for twice, with `--ties keep` and `merge`; what the verification
found on made-up samples (agreement of the top class in %, relative L2 error) stands beside the top-1.
"""

import argparse
from pathlib import Path

import onnx
from measuring import LabelledImages, size, top_1

import onnx_tropnnc


def row(path: Path, keep: float, ties: str, test: LabelledImages) -> str:
    """Return a row of the table."""
    try:
        result, report = onnx_tropnnc.compress(path, target_params=keep, ties=ties, round_to=1)
    except onnx_tropnnc.TropnncError as error:
        return f"{ties} | | | {error} | | "
    found, after = report.verification, size(result)
    agreement = "" if found is None or found.agreement is None else f"{found.agreement:.1f}"
    error = "" if found is None else f"{found.outputs[0].relative_l2:.3f}"
    macs = "" if after.macs is None else f"{after.macs:,}"
    return f"{ties} | {after.parameters:,} | {macs} | {top_1(result, test):.2f} | {agreement} | {error}"


def main() -> None:
    """Print two rows for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    parser.add_argument("--ties", nargs="+", default=["keep", "merge"])
    arguments = parser.parse_args()
    test = LabelledImages.load(arguments.data)
    base = top_1(onnx.load(arguments.model), test)
    print(f"{arguments.model.name}: {size(onnx.load(arguments.model)).parameters:,} parameters, {base:.2f} %\n")
    print("| keep | --ties | parameters | multiply-accumulates | top-1 % | agreement % | relative L2 |")
    print("|" + " --- |" * 7)
    for keep in arguments.keep:
        for ties in arguments.ties:
            print(f"| {keep:g} | {row(arguments.model, keep, ties, test)} |", flush=True)


if __name__ == "__main__":
    main()
