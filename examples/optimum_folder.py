"""Compress the model in a folder that Hugging Face Optimum exported, into a folder that Optimum loads.

    optimum-cli export onnx --model NAME exported/
    python examples/optimum_folder.py exported/ smaller/ --ratio 0.1

The tokenizer beside the model serves to make sentences up (pip install '.[text]'). Afterwards

    ORTModelForFeatureExtraction.from_pretrained("smaller/")

reads the result, since every other file of the folder is copied.
"""

import argparse
import shutil
from pathlib import Path

import onnx

import onnx_tropnnc as tropnnc


def main() -> None:
    """Copy the folder, with a smaller model in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exported", type=Path)
    parser.add_argument("smaller", type=Path)
    parser.add_argument("--ratio", type=float, default=0.1)
    chosen = parser.parse_args()
    model, report = tropnnc.compress(chosen.exported / "model.onnx", ratio=chosen.ratio)
    shutil.copytree(chosen.exported, chosen.smaller, ignore=shutil.ignore_patterns("*.onnx", "*.onnx_data"))
    onnx.save(model, chosen.smaller / "model.onnx")
    print(f"{report.before.parameters:,} -> {report.after.parameters:,} parameters. {report.verdict.line}")


if __name__ == "__main__":
    main()
