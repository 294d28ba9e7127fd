"""What pages and pictures need beyond the engine: the extra `report`, looked for before any work is done."""

import importlib.util

from onnx_tropnnc.errors import OptionError

__all__ = ["require"]


def require(option: str, *modules: str) -> None:
    """OptionError where one of the modules is not installed; `option` is what needs it."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise OptionError(f"{option} needs {' and '.join(missing)}; pip install 'onnx-tropnnc[report]'")
