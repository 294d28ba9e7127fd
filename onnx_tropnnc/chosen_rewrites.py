"""Say which rewrites the options ask for: they change no output, and a budget may remove what they make.

    rotates_streams     residual streams are rotated to their principal components     passes/rotate_streams.py
    narrows_queries     queries and keys are written in bases of the scores            passes/narrow_queries.py
    rotates_values      values of attention are written in bases of their own          passes/rotate_values.py
    factorizes          large layers are written as two factors                        passes/factorize_layers.py

All of them are for channels that are selected by their activations: a component of a basis can go, but two cannot be
merged as channels are. None is for ThiNet, which scales the channels that it keeps, except that streams may be rotated.
"""

from onnx_tropnnc.options import Options

__all__ = ["factorizes", "narrows_queries", "rotates_streams", "rotates_values"]


def rotates_streams(options: Options) -> bool:
    """Return whether residual streams are rotated."""
    return _rewrites(options, options.streams == "rotate", options.streams == "auto")


def narrows_queries(options: Options) -> bool:
    """Return whether queries and keys lose features."""
    asked, automatic = options.queries == "narrow", options.queries == "auto"
    return _rewrites(options, asked, automatic) and options.method != "thinet"


def rotates_values(options: Options) -> bool:
    """Return whether the values of attention are written in bases of their own, in which their features may go."""
    chosen = options.removes and options.selects and options.queries != "keep"
    # what a plan drops was decided in these bases, but not what it merges
    drops = options.plan is None or all(merge_map.selects for merge_map in options.plan.values())
    return chosen and drops and options.method != "thinet"


def factorizes(options: Options) -> bool:
    """Return whether large layers are written as two factors: where a budget says what that is worth."""
    return options.factorize and _spends(options) and options.selects and options.method != "thinet"


def _rewrites(options: Options, asked: bool, automatic: bool) -> bool:
    return (asked or (automatic and _spends(options))) and options.removes and options.selects


def _spends(options: Options) -> bool:
    # a plan that was made with a budget names streams, queries and factors as they are after the rewrite
    budgets = (options.target_params, options.target_macs, options.target_latency, options.plan)
    return any(amount is not None for amount in budgets)
