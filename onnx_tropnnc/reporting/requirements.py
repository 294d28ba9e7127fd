"""Look for the libraries of the extra `report` before any work is done: the engine does not need them."""

import importlib.util

from onnx_tropnnc.errors import OptionError, Setting

__all__ = ["require"]


def require(what: str | Setting, *modules: str) -> None:
    """Make sure that all modules are installed.

    Raises:
        OptionError: one of them is missing; the message says that `what` needs it, and how to install it.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise OptionError("{} needs {}; pip install {}", what, " and ".join(missing), " ".join(missing))
