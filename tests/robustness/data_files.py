"""--data with files that hold no samples: pipes, false headers, other kinds of files, types, shapes and values."""

import io
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from .commands import problem_of, run_command
from .outcomes import Outcome
from .random_graphs import SIDE, branching

__all__ = ["strange_data"]

Making = Callable[[Path, np.random.Generator], None]


def strange_data(seed: int) -> Outcome:
    """Run the command on a small graph with a strange file or folder as --data."""
    rng = np.random.default_rng(seed)
    making = MAKINGS[seed % len(MAKINGS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(branching(seed % 20), folder / "in.onnx")
        making(folder / "data", rng)
        options = ["--ratio", "0.3", *["--no-verify"] * int(rng.integers(2)), "--memory", "0.2", "--quiet"]
        ended = run_command(["in.onnx", "out.onnx", "--data", "data", *options], folder)
        return Outcome(f"data {seed} ({making.__name__})", problem_of(ended, folder), merged=ended.code == 0)


def _samples(rng: np.random.Generator, count: int = 20) -> NDArray[np.float32]:
    return rng.standard_normal((count, 2, SIDE, SIDE)).astype(np.float32)


def _npy(array: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _in_folder(data: Path, content: bytes, name: str = "x.npy") -> None:
    data.mkdir(exist_ok=True)
    (data / name).write_bytes(content)


def _in_archive(data: Path, content: bytes, name: str = "x.npy") -> None:
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(name, content)


def _either(data: Path, content: bytes, rng: np.random.Generator, name: str = "x.npy") -> None:
    (_in_folder if rng.random() < 0.5 else _in_archive)(data, content, name)


def sound(data: Path, rng: np.random.Generator) -> None:
    _either(data, _npy(_samples(rng)), rng)


def a_pipe(data: Path, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        os.mkfifo(data)
    else:
        data.mkdir()
        os.mkfifo(data / "x.npy")


def a_device(data: Path, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        data.symlink_to("/dev/zero")
    else:
        data.mkdir()
        (data / "x.npy").symlink_to(str(rng.choice(["/dev/zero", "/dev/full", "/dev/null", "x.npy", "/proc/self/mem"])))


def a_false_header(data: Path, rng: np.random.Generator) -> None:
    """The header promises more numbers than there are, up to more than any memory holds."""
    file = io.BytesIO()
    count = int(rng.choice([21, 10**6, 10**12, 2**62, -1]))
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": (count, 2, SIDE, SIDE)}
    )
    _either(data, file.getvalue() + bytes(4000), rng)


def another_header(data: Path, rng: np.random.Generator) -> None:
    header = str(
        rng.choice(
            [
                "{'descr': '<f4'}",
                "[" * 200,
                "__import__('os')",
                "{'descr': 'O', 'fortran_order': 1, 'shape': (1,)}",
                "ü" * 30,
            ]
        )
    )
    encoded = header.encode()
    _either(data, b"\x93NUMPY\x01\x00" + len(encoded).to_bytes(2, "little") + encoded + bytes(400), rng)


def an_archive_in_the_place_of_an_array(data: Path, rng: np.random.Generator) -> None:
    file = io.BytesIO()
    np.savez(file, x=_samples(rng))
    _either(data, file.getvalue(), rng)


def an_array_in_the_place_of_an_archive(data: Path, rng: np.random.Generator) -> None:
    data.write_bytes(_npy(_samples(rng)))


def a_long_name(data: Path, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        _in_folder(data, _npy(_samples(rng)), "y" * 200 + ".npy")
    else:
        _in_archive(data, _npy(_samples(rng)), "y" * 5000 + ".npy")


def another_type(data: Path, rng: np.random.Generator) -> None:
    kind = str(rng.choice(["U4", "S4", "c16", "M8[s]", "?", "i8", "u1", "f8", "f2", "V4", "i4,f4"]))
    with np.errstate(all="ignore"):
        values = np.zeros((20, 2, SIDE, SIDE), kind)
    _either(data, _npy(values), rng)


def another_shape(data: Path, rng: np.random.Generator) -> None:
    shapes = [
        (),
        (0,),
        (0, 2, SIDE, SIDE),
        (20,),
        (20, 3, SIDE, SIDE),
        (20, 2, SIDE, SIDE, 1),
        (20, 2, 0, SIDE),
        (1,) * 30,
    ]
    _either(data, _npy(np.zeros(shapes[int(rng.integers(len(shapes)))], np.float32)), rng)


def other_values(data: Path, rng: np.random.Generator) -> None:
    samples = _samples(rng)
    samples[3] = [np.nan, np.inf, -np.inf, 3e38, 1e-42][int(rng.integers(5))]
    _either(data, _npy(samples if rng.random() < 0.5 else np.full_like(samples, samples[3, 0, 0, 0])), rng)


def strange_labels(data: Path, rng: np.random.Generator) -> None:
    labels = [
        np.zeros(19, np.int64),
        np.full(20, -7),
        np.full(20, 2**62),
        np.zeros(20),
        np.zeros((20, 2), int),
        np.array("a"),
    ]
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("x.npy", _npy(_samples(rng)))
        archive.writestr("labels.npy", _npy(np.asarray(labels[int(rng.integers(len(labels)))])))


def bytes_changed(data: Path, rng: np.random.Generator) -> None:
    sound(data, rng)
    target = data / "x.npy" if data.is_dir() else data
    content = bytearray(target.read_bytes())
    for place in rng.integers(0, min(len(content), 300), 5):
        content[place] = int(rng.integers(256))
    target.write_bytes(bytes(content[: int(rng.integers(1, len(content) + 1))]))


def nothing(data: Path, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        data.mkdir()
    elif rng.random() < 0.5:
        data.touch()


def a_folder_in_the_place_of_an_array(data: Path, rng: np.random.Generator) -> None:
    (data / "x.npy").mkdir(parents=True)


def the_same_name_twice(data: Path, rng: np.random.Generator) -> None:
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("x.npy", _npy(_samples(rng)))
        archive.writestr("x", _npy(_samples(rng)))
        archive.writestr("../x.npy", b"")


MAKINGS: tuple[Making, ...] = (
    *(sound, a_pipe, a_device, a_false_header, another_header, an_archive_in_the_place_of_an_array, bytes_changed),
    *(
        an_array_in_the_place_of_an_archive,
        a_long_name,
        another_type,
        another_shape,
        other_values,
        strange_labels,
        nothing,
    ),
    *(a_folder_in_the_place_of_an_array, the_same_name_twice),
)
