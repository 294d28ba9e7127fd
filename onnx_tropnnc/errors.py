"""The errors that this package raises: each is a `TropnncError`, and its text is one line for a person.

    ValueError
    └── TropnncError              anything below; the command line prints its text and exits with code 2
        ├── InputModelError       the model is missing, not ONNX or truncated, or holds NaN or Inf in a weight
        ├── OutputPathError       a file cannot be written where it was asked for
        ├── OptionError           the value of an option is refused, or two options exclude each other
        ├── SampleError           inputs or calibration data do not fit the model
        ├── NotDifferentiable     no gradients can be computed of the model
        ├── NotRunnable           onnxruntime is missing, or cannot load or run the model
        └── BrokenPromiseError    a step that must be exact was not: a defect of this package

A message says what happened, why, and what to do. Python callers and the command line spell options differently, so a
message holds a `Setting` for each option that it names, in the place of a `{}`:

    error = OptionError("{} is outside [0, 1)", Setting("ratio", 1.5))
    str(error)                      ratio=1.5 is outside [0, 1)
    error.spelled(command_line)     --ratio 1.5 is outside [0, 1)
"""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "BrokenPromiseError",
    "InputModelError",
    "NotDifferentiable",
    "NotRunnable",
    "OptionError",
    "OutputPathError",
    "SampleError",
    "Setting",
    "TropnncError",
    "shortened",
]

# A line of an 80-column terminal holds the message around a value of this length.
LONGEST_VALUE = 60


@dataclass(frozen=True)
class Setting:
    """An option as a message names it: a field of `Options`, with its value where the message shows that."""

    name: str
    value: object = None

    def __str__(self) -> str:
        """Return the option as a Python caller writes it: `ratio=1.5`, or `ratio=` without a value."""
        return f"{self.name}=" if self.value is None else f"{self.name}={shortened(repr(self.value))}"


class TropnncError(ValueError):
    """Anything that this package refuses; `str(error)` is one line for a person.

    Args:
        message: the text; where `parts` are given, a format string with one `{}` for each of them.
        *parts: options as `Setting`, other errors, and values of the caller, whose braces are then left alone.
    """

    def __init__(self, message: str, *parts: object) -> None:
        # The base class keeps all arguments: an error that travels between processes is made anew from them.
        super().__init__(message, *parts)
        self.message, self.parts = message, parts

    def __str__(self) -> str:
        """Return the message with options spelled as Python callers write them."""
        return self.spelled(str)

    def spelled(self, spell: Callable[[Setting], str]) -> str:
        """Return the message with options spelled by `spell`."""
        if not self.parts:
            return self.message
        return self.message.format(*(_spelled(part, spell) for part in self.parts))


def _spelled(part: object, spell: Callable[[Setting], str]) -> object:
    """Return a part of a message as text where it is an option, or an error that names options itself."""
    if isinstance(part, TropnncError):
        return part.spelled(spell)
    return spell(part) if isinstance(part, Setting) else part


class InputModelError(TropnncError):
    """The model cannot be read, or holds values that no result could be right for."""


class OutputPathError(TropnncError):
    """A file cannot be written where it was asked for."""


class OptionError(TropnncError):
    """An option is out of range, unknown, or excluded by another one."""


class SampleError(TropnncError):
    """Inputs or calibration data do not fit the model."""


class NotDifferentiable(TropnncError):
    """No gradients can be computed of this model; the text is the reason."""


class NotRunnable(TropnncError):
    """onnxruntime is missing, or cannot load or run this model; the text is the reason."""


class BrokenPromiseError(TropnncError):
    """A step that must leave the outputs as they were did not: a defect of this package."""


def shortened(text: str) -> str:
    """Return the text, its middle left out where it is too long for a line.

    >>> shortened("a" * 100)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'
    """
    half = LONGEST_VALUE // 2 - 2
    return text if len(text) <= LONGEST_VALUE else f"{text[:half]}...{text[-half:]}"
