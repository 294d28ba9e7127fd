"""python -m tests.robustness [PART ...] [--sample N] [--seed S]: all of each part, or a sample; say what does not hold.

nodes          onnx's tests of every operator, alone and between two layers
models         its stored models with inputs and expected outputs;  light: its large ones, made small
graphs         random graphs and the laws that hold for all of them
broken         files that are truncated or changed
interruptions  runs killed at random moments, disks without room
escapes        files that reach outside their folder or hold pickles
structures     real graphs with one to three mutations of wires, types, ranks, attributes, dimensions, names, functions
operators      small models of recurrent layers, attention, fused and quantized operators, mutated likewise
options        every option with values that nobody should give
plans          changed plans in --apply-plan
data           files in --data that hold no samples
stopped        SIGINT and SIGTERM at random moments
replaced       runs that are killed while they replace an older result with external data
"""

import argparse
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator

from .backend_models import light_names, model_names, stored_model
from .backend_nodes import case_names, node_outcomes
from .broken_files import broken_file
from .data_files import strange_data
from .escapes import ESCAPES, escape
from .interruptions import full_disk, killed, run_seconds
from .option_values import strange_options
from .outcomes import Outcome
from .plans import changed_plan
from .random_graphs import outcome
from .stopped_runs import replaced, stopped
from .structures import mutated, mutated_operators

GRAPHS, BROKEN, KILLS, FULL = 500, 2000, 40, 12
STRUCTURES, OPERATORS, OPTIONS, PLANS, DATA, STOPPED, REPLACED = 5000, 600, 1000, 500, 320, 60, 40


def _drawn(names: list[str], sample: int | None, seed: int) -> list[str]:
    return names if sample is None or sample >= len(names) else sorted(random.Random(seed).sample(names, sample))


def _nodes(sample: int | None, seed: int) -> Iterator[Outcome]:
    for name in _drawn(case_names(), sample, seed):
        yield from node_outcomes(name)


def _interruptions(sample: int | None, seed: int) -> Iterator[Outcome]:
    seconds = run_seconds()
    for number in range(seed, seed + (sample or KILLS)):
        yield killed(number, seconds)
    for number in range(seed, seed + (sample or FULL)):
        yield full_disk(number)


def _numbered(try_one: Callable[[int], Outcome], count: int) -> Callable[[int | None, int], Iterator[Outcome]]:
    """Return a part whose cases are numbers."""
    return lambda sample, seed: map(try_one, range(seed, seed + (sample or count)))


def _timed(try_one: Callable[[int, float], Outcome], count: int) -> Callable[[int | None, int], Iterator[Outcome]]:
    """Return a part whose cases are numbers and need to know how long a whole run takes."""

    def part(sample: int | None, seed: int) -> Iterator[Outcome]:
        seconds = run_seconds()
        return (try_one(number, seconds) for number in range(seed, seed + (sample or count)))

    return part


PARTS: dict[str, Callable[[int | None, int], Iterator[Outcome]]] = {
    "nodes": _nodes,
    "models": lambda sample, seed: map(stored_model, _drawn(model_names(), sample, seed)),
    "light": lambda sample, seed: map(stored_model, _drawn(light_names(), sample, seed)),
    "graphs": _numbered(outcome, GRAPHS),
    "broken": _numbered(broken_file, BROKEN),
    "interruptions": _interruptions,
    "escapes": lambda sample, seed: map(escape, ESCAPES),
    "structures": _numbered(mutated, STRUCTURES),
    "operators": _numbered(mutated_operators, OPERATORS),
    "options": _numbered(strange_options, OPTIONS),
    "plans": _numbered(changed_plan, PLANS),
    "data": _numbered(strange_data, DATA),
    "stopped": _timed(stopped, STOPPED),
    "replaced": _timed(replaced, REPLACED),
}


def main() -> int:
    """Print every problem, and the counts of each part; 1 where there is a problem."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.robustness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], metavar="PART")
    parser.add_argument("--sample", type=int, help="how many of each part (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    problems = 0
    for part in arguments.parts or PARTS:
        counts: Counter[str] = Counter(problems=0)
        for found in PARTS[part](arguments.sample, arguments.seed):
            counts["problems" if found.problem else "not tried" if found.skipped else "held"] += 1
            counts["became smaller"] += found.merged
            if found.problem:
                print(f"{found.case}: {found.problem}", flush=True)
        print(f"{part}: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}", flush=True)
        problems += counts["problems"]
    return int(problems > 0)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # numpy's, about the infinities that some tests are about
    sys.exit(main())
