"""A loss of agreement that may not be exceeded: the smallest share of the parameters that stays within it.

How much agreement a size costs shows only when the model is compressed and compared, so the share is found by bisection
over whole percents.
"""

from dataclasses import replace

from onnx_tropnnc.bisection import Refused, search
from onnx_tropnnc.errors import OptionError, Setting
from onnx_tropnnc.options import Options
from onnx_tropnnc.searching.trials import Trials

__all__ = ["within_drop"]

# Shares up to this one are not tried: a budget leaves a tenth of each group's channels, so a tenth of a first or last
# layer and one percent of the layers between. What would be left of such a model agrees with nothing.
_TOO_SMALL_PERCENT = 5


def within_drop(options: Options, trials: Trials) -> Options:
    """Return the options with `target_params` instead of `max_drop`; with a ratio of 0 where no share is within it.

    Raises:
        OptionError: the model has no row of scores to agree on, or nothing can be verified.
    """
    demanded = 100.0 - (options.max_drop or 0.0)

    def agrees(percent: int) -> bool | Refused:
        trials.progress(f"try {percent} % of the parameters")
        model = trials.compressed(replace(options, max_drop=None, target_params=percent / 100))
        if isinstance(model, Refused):
            return model
        found = trials.compare(model)
        if found.likely_agreement is None:
            why = found.not_verified or "no output is a row of scores"
            raise OptionError("{}: agreement cannot be measured: {}", Setting("max_drop"), why)
        return found.likely_agreement.middle >= demanded

    best = search(_TOO_SMALL_PERCENT, 100, agrees, wanted="smallest")
    if best is None:
        # duplicates still go: a ratio of 0 removes what costs nothing
        return replace(options, max_drop=None, ratio=0.0)
    # what was tried kept all blocks
    return replace(options, max_drop=None, target_params=best / 100, blocks="keep")
