"""python -m tests.robustness [--sample N] [--graphs N] [--seed S] [--only TEXT]: say what does not hold."""

import argparse
import itertools
import random
import sys
import warnings
from collections import Counter

from .backend_nodes import all_outcomes, case_names
from .random_graphs import outcome


def main() -> int:
    """Print every problem and the totals; 1 where there is a problem."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness", description=__doc__)
    parser.add_argument("--sample", type=int, help="how many of onnx's node tests to draw (default: all)")
    parser.add_argument("--graphs", type=int, default=500, help="how many random graphs (default: 500)")
    parser.add_argument("--only", default="", help="node tests with this in their name")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    names = [name for name in case_names() if arguments.only in name]
    if arguments.sample is not None:
        names = sorted(random.Random(arguments.seed).sample(names, min(arguments.sample, len(names))))
    graphs = map(outcome, range(arguments.seed, arguments.seed + arguments.graphs))
    counts: Counter[str] = Counter()
    for found in itertools.chain(all_outcomes(names), graphs):
        counts["problems" if found.problem else "skipped" if found.skipped else "held"] += 1
        counts["merged something"] += found.merged
        if found.problem:
            print(f"{found.case}: {found.problem}", flush=True)
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    return int(counts["problems"] > 0)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # numpy's, about the infinities that some tests are about
    sys.exit(main())
