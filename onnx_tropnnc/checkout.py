"""Tell whether the code of the passes can be imported: in a checkout it stands behind a symbolic link.

Downloads as zip, and git on Windows without the right to make links, leave a small text file in the link's place.
"""

from pathlib import Path

__all__ = ["missing_passes"]


def missing_passes() -> str | None:
    """Return what to do where onnx_tropnnc/passes is no folder, or None where all is there."""
    if Path(__file__).with_name("passes").is_dir():
        return None
    return (
        "this checkout has no symbolic links, so onnx_tropnnc/passes leads nowhere; "
        "run pip install '.[cpu]' in it and use the installed command, from another folder"
    )
