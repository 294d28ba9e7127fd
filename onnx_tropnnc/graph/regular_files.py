"""Tell regular files from what only looks like a file, and say where a result may be written.

Opening a pipe waits for a writer, and a device may never end.
"""

import errno
import os
import stat
from pathlib import Path

from onnx_tropnnc.errors import OutputPathError

__all__ = ["check_output", "irregular"]

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


def _followed(path: Path) -> Path:
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


def check_output(target: str | os.PathLike[str], source: object) -> Path:
    """Return the path to write, after making sure that it can be written and is not the input; links are followed.

    Args:
        target: the file to write.
        source: the input: its path, or a model in memory, which is no file.

    Raises:
        OutputPathError: the folder does not exist or may not be written, or the target is the input or no regular file.
    """
    path, written = Path(target), os.fspath(target)
    try:
        # Path leaves out what tells a folder's name from a file's
        if not path.is_dir() and written.endswith(("/", "/.", os.sep)):
            raise OutputPathError(f"{written}: names a folder; name a file to write, such as {path}")
        return _writable(path, source)
    except (OSError, ValueError) as error:
        if isinstance(error, OutputPathError):
            raise
        raise OutputPathError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from error


def _writable(path: Path, source: object) -> Path:
    if "\0" in str(path):
        raise ValueError("a null character in its name")
    path = _followed(path)
    if path.is_dir():
        raise OutputPathError(f"{path}: is a folder; name a file to write, such as {path / 'out.onnx'}")
    if kind := irregular(path):
        raise OutputPathError(f"{path}: is {kind}, which no file can replace; name a file to write")
    if not path.absolute().parent.is_dir():
        raise OutputPathError(f"{path}: its folder does not exist; create it first")
    if path.exists() and isinstance(source, str | os.PathLike) and Path(source).exists() and path.samefile(source):
        raise OutputPathError(f"{path}: is the input; name another file, the input is never overwritten")
    unwritable = path if path.exists() and not os.access(path, os.W_OK) else path.absolute().parent
    if not os.access(unwritable, os.W_OK):
        raise OutputPathError(f"{path}: no permission to write there")
    return path
