"""Tell regular files from what only looks like a file: opening a pipe waits for a writer, a device may never end."""

import errno
import os
import stat
from pathlib import Path

from onnx_tropnnc.errors import OutputPathError

__all__ = ["followed", "irregular"]

# As many as Linux itself follows.
MOST_LINKS = 40

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def irregular(path: str | os.PathLike[str]) -> str | None:
    """Return what stands at the path, or None where that is a regular file or nothing at all; links are followed.

    >>> irregular("/dev/null")
    'a device'
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):  # missing, or not to be looked at: whoever opens the file says which
        return None
    return None if kind == stat.S_IFREG else _KINDS.get(kind, "no regular file")


def followed(path: Path) -> Path:
    """Return the file that links at the path lead to, there or not: it is to be replaced, and the links are to stay.

    Raises:
        OutputPathError: a link leads to an open file of this process, as /dev/stdout does.
        OSError: the links lead in a circle.
    """
    for _ in range(MOST_LINKS):
        if not path.is_symlink():
            return path
        folder = os.path.realpath(path.parent)
        if folder == "/dev" or folder.startswith("/proc/"):
            raise OutputPathError(f"{path}: is a device, which no file can replace; name a file to write")
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
