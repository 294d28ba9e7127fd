"""What stands beside pre-fusion kernels in the clustering vector: top-1 of merging alone, by reading and amount.

    python benchmarks/clustering_vectors.py MODEL.onnx DATA.npz [--limit N]

The paper clusters "pre-fusion weights/kernels" (second version, 7.5) and leaves open which bias belongs to them. Every
reading (onnx_tropnnc/merging/features.py) is measured with Algorithm 2: at ratios on Ward's clusters and on those of
k-means, and at equal numbers of parameters with one global threshold (variants 1 and 2). DATA.npz is described in
paper.py.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from measuring import LabelledImages, Subject, size, top_1
from paper_non_uniform import Rule, measured_at_size

from onnx_tropnnc.choices import Features
from onnx_tropnnc.merging.representatives import TropNNC

READINGS: tuple[Features, ...] = ("weights", "fused-bias", "weighted-bias")
RATIOS, SHARES = (0.1, 0.3, 0.5), (0.85, 0.75, 0.65)


def lines(subject: Subject, data: LabelledImages) -> Iterator[str]:
    """Yield a Markdown table, one row a reading."""
    columns = [f"{clustering} {ratio:g}" for clustering in ("ward", "k-means") for ratio in RATIOS]
    columns += [f"v{variant} {share:.0%}" for variant in ("1", "2") for share in SHARES]
    yield f"| vector | {' | '.join(columns)} |"
    yield "| --- |" + " --- |" * len(columns)
    base = size(subject.folded).parameters
    for features in READINGS:
        found = [
            top_1(subject.merged(TropNNC(features=features, clustering=clustering), ratio=ratio), data)
            for clustering in ("ward", "kmeans")
            for ratio in RATIOS
        ]
        for variant in ("1", "2"):
            rule = Rule("", TropNNC(features=features), variant)
            found += [measured_at_size(subject, rule, round(share * base), data).accuracy for share in SHARES]
        yield f"| {features} | {' | '.join(f'{value:.1f}' for value in found)} |"


def main() -> None:
    """Print the table of one model."""
    parser = argparse.ArgumentParser(description="Merging alone, by what stands beside pre-fusion kernels.")
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="test images and labels, .npz")
    parser.add_argument("--limit", type=int, help="use the first N images only")
    parser.add_argument("--mean", type=float, nargs="+", help="instead of the data's")
    parser.add_argument("--std", type=float, nargs="+", help="instead of the data's")
    arguments = parser.parse_args()
    data = LabelledImages.load(arguments.data, limit=arguments.limit, mean=arguments.mean, deviation=arguments.std)
    print(f"{arguments.model.name}, {len(data.labels)} images of {arguments.data.name}; the original: ", end="")
    subject = Subject.load(arguments.model)
    print(f"{top_1(subject.folded, data):.1f}\n")
    for line in lines(subject, data):
        print(line, flush=True)


if __name__ == "__main__":
    main()
