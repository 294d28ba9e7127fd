"""python -m tests.robustness [--sample N] [--seed S] [--only TEXT]: run the node tests, and say what did not hold."""

import argparse
import random
import sys
from collections import Counter

from .backend_nodes import all_outcomes, case_names


def main() -> int:
    """Print every problem and the totals; 1 where there is a problem."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness", description=__doc__)
    parser.add_argument("--sample", type=int, help="how many tests to draw (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="tests with this in their name")
    arguments = parser.parse_args()
    names = [name for name in case_names() if arguments.only in name]
    if arguments.sample is not None:
        names = sorted(random.Random(arguments.seed).sample(names, min(arguments.sample, len(names))))
    counts: Counter[str] = Counter()
    for outcome in all_outcomes(names):
        counts["problems" if outcome.problem else "skipped" if outcome.skipped else "held"] += 1
        counts["merged"] += outcome.merged
        if outcome.problem:
            print(f"{outcome.case}: {outcome.problem}", flush=True)
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    return int(counts["problems"] > 0)


if __name__ == "__main__":
    sys.exit(main())
