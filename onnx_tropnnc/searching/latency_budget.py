"""A latency budget met by measuring: the largest share of the multiply-accumulates that runs fast enough here.

Latency has no formula, but falls with the multiply-accumulates of channel counts that the runtime is fast at. Their
share is found by bisection, each time with the channels that would be kept then. Nothing is solved: a model's time
depends on its sizes alone. The original and each candidate are timed in turn.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from onnx_tropnnc.bisection import Refused, search
from onnx_tropnnc.errors import NotRunnable, OptionError, Setting
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_manager import Progress
from onnx_tropnnc.running.latency import Latency

__all__ = ["within_latency"]

# The smallest share that is tried: a budget leaves a tenth of each group's channels, so one percent of the products
# between two groups, and smaller shares are refused.
_SMALLEST_PERCENT = 2


def within_latency(
    options: Options,
    merged: Callable[[Options], Model | Refused],
    timed: Callable[[Model], Latency],
    progress: Progress,
) -> Options:
    """Return the options with `target_macs` instead of `target_latency`.

    Args:
        options: with `target_latency`.
        merged: returns the model at options with another amount, nothing solved.
        timed: times a model beside the original.
        progress: told of every trial.

    Raises:
        OptionError: nothing can be timed here, or even the smallest model is too slow; the message says how fast it is.
    """
    wanted = options.target_latency or 1.0
    fastest = math.inf

    def fast_enough(percent: int) -> bool | Refused:
        nonlocal fastest
        model = merged(_at(options, percent))
        if isinstance(model, Refused):
            return model
        share = _share(timed, model)
        progress(f"{percent} % of the multiply-accumulates take {100 * share:.0f} % of the time")
        fastest = min(fastest, share)
        return share <= wanted

    # up to 100 percent, because a model may be fast enough as it is
    best = search(_SMALLEST_PERCENT - 1, 101, fast_enough, wanted="largest")
    if best is None:
        reached = f"the least of the latency that was measured was {fastest:.2f}"
        raise OptionError("{} cannot be reached: {}", Setting("target_latency", wanted), reached)
    return _at(options, best)


def _at(options: Options, percent: int) -> Options:
    return replace(options, target_latency=None, target_macs=percent / 100)


def _share(timed: Callable[[Model], Latency], model: Model) -> float:
    """Return a model's time as a share of the original's."""
    try:
        found = timed(model)
    except NotRunnable as error:
        raise OptionError(
            "{} cannot be met, for nothing can be timed here: {}", Setting("target_latency"), error
        ) from error
    return found.after_ms / found.before_ms
