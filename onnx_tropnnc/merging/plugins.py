"""Find the methods that other packages bring, as entry points of the group `onnx_tropnnc.methods`.

    [project.entry-points."onnx_tropnnc.methods"]
    spectral = "my_package:Spectral"                 then: --method spectral

What an entry point names is called without arguments and must return a `Method` (merging/representatives.py).
"""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import get_args

from onnx_tropnnc.choices import MethodName
from onnx_tropnnc.errors import OptionError, Setting
from onnx_tropnnc.merging.representatives import METHODS, Method
from onnx_tropnnc.option_checks import listed

__all__ = ["GROUP", "method_named", "plugin_methods"]

GROUP = "onnx_tropnnc.methods"
"""The group of entry points that packages name their methods in."""


def method_named(name: str) -> Method:
    """Return the method of this name, with its defaults: one of METHODS or of a plugin.

    Raises:
        OptionError: there is none, or the plugin does not work.
    """
    # plugins are looked up only where they are asked for, because that reads the metadata of all installed packages
    methods = METHODS if name in METHODS else {**METHODS, **plugin_methods()}
    if name not in methods:
        known = dict.fromkeys((*get_args(MethodName), *methods))
        raise OptionError("{} is unknown; choose {}", Setting("method", name), listed(known))
    return methods[name]()


def plugin_methods() -> Mapping[str, Callable[[], Method]]:
    """Return what makes each installed method, by its name; none of their packages is imported before it is called."""
    return {entry.name: _maker(entry) for entry in entry_points(group=GROUP)}


def _maker(entry: EntryPoint) -> Callable[[], Method]:
    named = Setting("method", entry.name)

    def make() -> Method:
        try:
            made: Method = entry.load()()
        except (ImportError, AttributeError, TypeError) as error:
            raise OptionError("{} cannot be used: {} does not load ({})", named, entry.value, error) from error
        if not callable(made) or not isinstance(getattr(made, "name", None), str):
            raise OptionError("{} cannot be used: {} makes no callable with a name", named, entry.value)
        return made

    return make
