"""Where the time of a run goes: seconds and processor seconds of the command with its defaults, stage by stage.

    python benchmarks/stages.py MODEL.onnx [OPTION=VALUE ..]        such as ratio=0.3 or target_params=0.5

Prints one line of the table in docs/benchmarks.md. Processor seconds are those of all threads; the stages' are counted
by wrapping the functions that do them, so that the rest (imports, folding, reading) is what is left.
"""

import argparse
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnx_tropnnc import compress, engine
from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.passes import verify_outputs
from onnx_tropnnc.passes.reconstruct_consumers import ReconstructConsumers
from onnx_tropnnc.solving.refits import chain_jobs, pair_jobs

STAGES = "samples", "decide", "solve", "fit jointly", "verify"


def counted(spent: dict[str, float], owner: object, name: str, stage: str) -> None:
    """Let each call of `owner.name` add its processor seconds to a stage."""
    whole: Callable[..., Any] = getattr(owner, name)

    def timed(*arguments: Any, **keywords: Any) -> Any:
        start = time.process_time()
        try:
            return whole(*arguments, **keywords)
        finally:
            spent[stage] += time.process_time() - start

    setattr(owner, name, timed)


def main() -> None:
    """Print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("options", nargs="*", default=["ratio=0.3"])
    given = parser.parse_args()
    spent: dict[str, float] = defaultdict(float)
    counted(spent, engine, "needed_samples", "samples")
    counted(spent, Decider, "attempt", "decide")
    counted(spent, ReconstructConsumers, "__call__", "solve")
    for jobs in (pair_jobs, chain_jobs):
        counted(spent, jobs, "refit", "fit jointly")
    counted(spent, verify_outputs, "verify", "verify")
    options = {name: float(value) for name, _, value in (text.partition("=") for text in given.options)}
    start = time.perf_counter()
    compress(given.model, **options)  # type: ignore[arg-type]
    seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    # joint fits are a part of solving
    spent["solve"] -= spent["fit jointly"]
    numbers = (seconds, used.ru_utime + used.ru_stime, *(spent[stage] for stage in STAGES))
    print("| " + " | ".join([given.model.stem, " ".join(given.options), *(f"{n:.1f}" for n in numbers)]) + " |")


if __name__ == "__main__":
    main()
