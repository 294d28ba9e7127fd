"""A loss of agreement that may not be exceeded: the smallest share of the parameters that stays within it.

How much agreement a size costs shows only when the model is compressed and compared, so the share is found by bisection
over whole percents.
"""

from dataclasses import replace

from onnx_tropnnc.bisection import Refused, search
from onnx_tropnnc.changes import Note, Unchanged
from onnx_tropnnc.errors import OptionError, Setting
from onnx_tropnnc.options import Options
from onnx_tropnnc.searching.trials import Trials

__all__ = ["within_drop"]

_ADVICE = "allow a larger --max-drop, or give samples (--data)."

# Shares up to this one are not tried: a budget leaves a tenth of each group's channels, so a tenth of a first or last
# layer and one percent of the layers between. What would be left of such a model agrees with nothing.
_TOO_SMALL_PERCENT = 5


def within_drop(options: Options, trials: Trials) -> tuple[Options, tuple[Note, ...]]:
    """Return the options with `target_params` instead of `max_drop`, and what a reader of the result should know.

    Where no share is within the drop, they have a ratio of 0: duplicates still go, because they cost nothing.

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
    drop = f"--max-drop {options.max_drop:g}"
    if best is None:
        why = f"with every size that was tried more answers than {drop} allows would change"
        return replace(options, max_drop=None, ratio=0.0), (Note(f"{drop}: {why}", unchanged=Unchanged(why, _ADVICE)),)
    why = f"all channels are needed to stay within {drop}"
    text = f"{drop} was reached with {best} % of the parameters"
    # what was tried kept all blocks
    return replace(options, max_drop=None, target_params=best / 100, blocks="keep"), (
        Note(text, unchanged=Unchanged(why, _ADVICE)),
    )
