"""The errors this package raises, all of them a `TropnncError` with one line for a person.

    ValueError
    └── TropnncError              anything below; the command line prints its text and exits with 2
        ├── InputModelError       the model: missing, not ONNX, truncated, external data, NaN in a weight
        ├── OutputPathError       the result cannot be written where it was asked
        ├── OptionError           an option's value, or options that exclude each other
        ├── SampleError           inputs or calibration data that do not fit the model
        └── BrokenPromiseError    a step that must be exact was not: a defect of this package

Each message says which file or node, and what to do about it.
"""

__all__ = [
    "BrokenPromiseError",
    "InputModelError",
    "OptionError",
    "OutputPathError",
    "SampleError",
    "TropnncError",
]


class TropnncError(ValueError):
    """Anything that this package refuses; `str(error)` is one line for a person."""


class InputModelError(TropnncError):
    """The model cannot be read or holds values that no result could be right for."""


class OutputPathError(TropnncError):
    """The result cannot be written where it was asked."""


class OptionError(TropnncError):
    """An option is out of range, unknown, or excluded by another one."""


class SampleError(TropnncError):
    """Inputs or calibration data do not fit the model."""


class BrokenPromiseError(TropnncError):
    """A step that must leave the outputs as they were did not: a defect of this package."""
