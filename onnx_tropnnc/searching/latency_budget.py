"""A latency budget met by measuring: the largest share of the multiply-accumulates that runs fast enough here.

Latency has no formula, but falls with the multiply-accumulates of channel counts that the runtime is fast at; so their
share is found by bisection, each time with the channels that would be kept then, and nothing solved: sizes are all that
time depends on. Original and candidate are timed in turn.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.options import Options
from onnx_tropnnc.pass_manager import Progress
from onnx_tropnnc.running.latency import Latency
from onnx_tropnnc.running.sessions import NotRunnable

__all__ = ["within_latency"]

_SMALLEST_PERCENT = 2


def within_latency(
    options: Options, sized: Callable[[Options], Model], timed: Callable[[Model], Latency], progress: Progress
) -> Options:
    """The options with `target_macs` instead of `target_latency`.

    Args:
        options: with `target_latency`.
        sized: the model at options with another amount, nothing solved.
        timed: a model beside the original.
        progress: told of every trial.

    Raises:
        OptionError: nothing can be timed here, or even the smallest model is too slow; the message says how fast it is.
    """
    wanted = options.target_latency or 1.0
    low, high = _SMALLEST_PERCENT - 1, 101
    best, fastest = None, math.inf
    while high - low > 1:
        middle = (low + high) // 2
        try:
            model = sized(_at(options, middle))
        except OptionError:  # below what budgets may take from a group
            low = middle
            continue
        share = _share(timed, model)
        progress(f"{middle} % of the multiply-accumulates take {100 * share:.0f} % of the time")
        fastest = min(fastest, share)
        low, high, best = (middle, high, middle) if share <= wanted else (low, middle, best)
    if best is None:
        reached = f"the least of the latency that was measured was {fastest:.2f}"
        raise OptionError(f"--target-latency {wanted:g} cannot be reached: {reached}")
    return _at(options, best)


def _at(options: Options, percent: int) -> Options:
    return replace(options, target_latency=None, target_macs=percent / 100)


def _share(timed: Callable[[Model], Latency], model: Model) -> float:
    try:
        found = timed(model)
    except NotRunnable as error:
        raise OptionError(f"--target-latency: nothing can be timed here: {error}") from error
    return found.after_ms / found.before_ms
