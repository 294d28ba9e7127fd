"""Named arrays that the user gives: a .npz file, a folder of .npy files, arrays from Python, or a reader of batches.

    with opened("data.npz", specs) as store:
        store.names            ->  ("x", "labels")
        store.read("x")        ->  the array

Files are judged before they are read: pickles are never loaded, a device or a pipe is never opened, and an array that
claims more bytes than its file has is refused from its header alone.
"""

import stat
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.graph.input_specs import InputSpec
from onnx_tropnnc.inputs.readers import Data, DataReader, read_all

__all__ = ["Array", "Store", "opened"]

Array = NDArray[Any]

# Characters of a path that a message repeats: a longer one would bury what the message says.
LONGEST_NAME = 200

# Bytes of an array above which its packing is looked at, and how many times smaller than itself it may be packed:
# values that were measured are packed to a half or a tenth, and a gigabyte of zeros to a thousandth.
LARGE_ENTRY, MOST_UNPACKING = 2**30, 200

# How an archive begins: with its first member, or at once with the end of an empty list of members.
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True)
class Store:
    """Arrays by name, read one at a time."""

    source: str
    """What messages and reports call the whole of them."""
    names: tuple[str, ...]
    read: Callable[[str], Array]

    def place(self, name: str) -> str:
        """Return what a message calls one array."""
        return f"{self.source}: array {name}"


@contextmanager
def opened(data: Data, specs: Sequence[InputSpec]) -> Iterator[Store]:
    """Give access to the arrays of `data`; a file is closed again at the end.

    Raises:
        SampleError: `data` is missing, or is neither a .npz archive nor a folder.
    """
    if isinstance(data, DataReader):
        yield _in_memory("the data reader", read_all(data, specs))
    elif not isinstance(data, str | Path):
        yield _in_memory("the arrays given", data)
    else:
        path = Path(data)
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            names = tuple(sorted(file.stem for file in path.glob("*.npy")))
            yield Store(_shortened(path), names, lambda name: _array_file(path / f"{name}.npy"))
            return
        with ExitStack() as stack:
            archive = _guarded(lambda: _archive(path, mode, stack), _shortened(path))
            yield Store(_shortened(path), tuple(archive.files), lambda name: _member(archive, name, _shortened(path)))


def _in_memory(source: str, arrays: Any) -> Store:
    return Store(source, tuple(arrays), lambda name: np.asarray(arrays[name]))


def _mode(path: Path) -> int:
    """Return what kind of file the path names, links followed."""
    mode: int = _guarded(lambda: path.stat().st_mode, _shortened(path))
    return mode


def _archive(path: Path, mode: int, stack: ExitStack) -> Any:
    file: BinaryIO = stack.enter_context(_regular(path, mode))
    # numpy would read a whole .npy file, or try a pickle, before it could say that this is no archive
    if file.read(4) not in ZIP_MAGIC:
        raise SampleError(f"{_shortened(path)}: not an .npz archive; save it with numpy.savez, one array per input")
    file.seek(0)
    archive = np.load(file, allow_pickle=False)
    stack.enter_context(archive)
    return archive


def _member(archive: Any, name: str, source: str) -> Array:
    entry = next(info for info in archive.zip.infolist() if info.filename in (name, f"{name}.npy"))
    if entry.file_size > max(LARGE_ENTRY, MOST_UNPACKING * entry.compress_size):
        large, packed = entry.file_size / 2**30, entry.compress_size / 2**20
        raise SampleError(f"{source}: array {name} unpacks from {packed:.1f} MB to {large:.1f} GB, as no samples do")
    array = _guarded(lambda: archive[name], f"{source}: array {name}")
    if not isinstance(array, np.ndarray):  # numpy hands out the bytes of members that are no arrays
        raise SampleError(f"{source}: array {name} holds no plain numbers")
    return array


def _array_file(path: Path) -> Array:
    """Return the array of a .npy file, mapped: numpy compares the size in its header with the file's before that."""
    place = _shortened(path)
    mode = _mode(path)

    def read() -> Any:
        _regular(path, mode).close()
        return np.load(path, mmap_mode="r", allow_pickle=False)

    array = _guarded(read, place)
    if not isinstance(array, np.ndarray):
        array.close()
        raise SampleError(f"{place}: not an .npy file but an archive; save it with numpy.save, or give the .npz itself")
    return array


def _regular(path: Path, mode: int) -> BinaryIO:
    """Open a regular file. Opening a pipe would wait for somebody to write into it, and a device may never end."""
    if not stat.S_ISREG(mode):
        raise SampleError(f"{_shortened(path)}: not a regular file; give a .npz file or a folder of .npy files")
    return path.open("rb")


def _guarded(read: Callable[[], Any], place: str) -> Any:
    """Return what `read` returns; everything that damaged or foreign files make it raise becomes one SampleError."""
    try:
        with np.errstate(all="ignore"):  # numpy multiplies the dimensions of a header before it checks them
            return read()
    except SampleError:
        raise
    except FileNotFoundError:
        raise SampleError(f"{place}: no such file") from None
    except MemoryError:
        raise SampleError(f"{place} claims more values than this machine has memory for") from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise SampleError(f"{place} cannot be read: {reason}") from error
    except (ValueError, TypeError, SyntaxError, ArithmeticError, LookupError, tokenize.TokenError) as error:
        # numpy reads the header of an array as Python source, so that garbage there fails in many ways
        reason = " ".join(str(error).split())
        raise SampleError(f"{place} holds no plain numbers (pickled objects are never read): {reason}") from error


def _shortened(path: Path) -> str:
    text = "".join(character if character.isprintable() else "?" for character in str(path))
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME // 2]}...{text[-LONGEST_NAME // 2 :]}"
