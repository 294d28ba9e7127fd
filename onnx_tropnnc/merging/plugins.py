"""Methods that other packages bring: entry points of the group `onnx_tropnnc.methods`.

    [project.entry-points."onnx_tropnnc.methods"]
    spectral = "my_package:Spectral"                 then: --method spectral

What an entry point names is called without arguments and must give a `Method` (merging/representatives.py).
"""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points

from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.merging.representatives import Method

__all__ = ["GROUP", "plugin_methods"]

GROUP = "onnx_tropnnc.methods"


def plugin_methods() -> Mapping[str, Callable[[], Method]]:
    """How to make each method that is installed, by its name; nothing of them is imported yet."""
    return {entry.name: _maker(entry) for entry in entry_points(group=GROUP)}


def _maker(entry: EntryPoint) -> Callable[[], Method]:
    def make() -> Method:
        try:
            made: Method = entry.load()()
        except (ImportError, AttributeError, TypeError) as error:
            raise OptionError(f"--method {entry.name}: {entry.value} cannot be used ({error})") from error
        if not callable(made) or not isinstance(getattr(made, "name", None), str):
            raise OptionError(f"--method {entry.name}: {entry.value} makes no method, a callable with a name")
        return made

    return make
