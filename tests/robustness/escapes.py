"""Files that try to reach outside their folder, or to run code: refused with one line."""

import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from .broken_files import command
from .interruptions import large_model
from .outcomes import Outcome

__all__ = ["ESCAPES", "escape"]


class Trap:
    """Unpickling it leaves a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (_spring, (str(self.place),))


def _spring(place: str) -> None:
    Path(place).touch()


def _external(location: str) -> Callable[[Path], list[str]]:
    """A weight whose data is said to lie at `location`."""

    def build(folder: Path) -> list[str]:
        (folder.parent / "secret.bin").write_bytes(bytes(4 * 600 * 500))
        model = large_model()
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location.format(folder=folder.parent))
        (folder / "in.onnx").write_bytes(model.SerializeToString())
        return []

    return build


def _linked(folder: Path) -> list[str]:
    """External data that is a link to outside."""
    arguments = _external("inside.bin")(folder)
    (folder / "inside.bin").symlink_to(folder.parent / "secret.bin")
    return arguments


def _pickled_array(folder: Path) -> list[str]:
    onnx.save(large_model(), folder / "in.onnx")
    np.savez(folder / "data.npz", x=np.array([Trap(folder.parent / "sprung")], dtype=object))
    return ["--data", str(folder / "data.npz")]


def _pickle_in_npz(folder: Path) -> list[str]:
    onnx.save(large_model(), folder / "in.onnx")
    with zipfile.ZipFile(folder / "data.npz", "w") as file:
        file.writestr("x.npy", pickle.dumps(Trap(folder.parent / "sprung")))
    return ["--data", str(folder / "data.npz")]


def _pickled_file(folder: Path) -> list[str]:
    onnx.save(large_model(), folder / "in.onnx")
    (folder / "data").mkdir()
    np.save(folder / "data" / "x.npy", np.array([Trap(folder.parent / "sprung")], dtype=object))
    return ["--data", str(folder / "data")]


def _body_external(folder: Path) -> list[str]:
    """Return a Constant node whose tensor lies outside."""
    _external("../secret.bin")(folder)
    model = onnx.load(folder / "in.onnx", load_external_data=False)
    tensor = model.graph.initializer.pop(0)
    model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    (folder / "in.onnx").write_bytes(model.SerializeToString())
    return []


ESCAPES: dict[str, Callable[[Path], list[str]]] = {
    "external data one folder up": _external("../secret.bin"),
    "external data by an absolute path": _external("{folder}/secret.bin"),
    "external data by a long way round": _external("a/../../secret.bin"),
    "external data behind a link": _linked,
    "external data of a Constant": _body_external,
    "an .npz with a pickled array": _pickled_array,
    "an .npz with a bare pickle": _pickle_in_npz,
    "a folder with a pickled array": _pickled_file,
}


def escape(name: str) -> Outcome:
    """Try one way to get out, and return what came of it."""
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside, "folder")
        folder.mkdir()
        more = ESCAPES[name](folder)
        arguments = [str(folder / "in.onnx"), str(folder / "out.onnx"), "--ratio", "0.5", "--quiet", *more]
        code, said = command(arguments)
        problem = None
        if code != 2 or len(said.strip().splitlines()) != 1:
            problem = f"exit {code}, said {said[-200:]!r}"
        elif (folder / "out.onnx").exists() or Path(outside, "sprung").exists():
            problem = "something was written"
        return Outcome(name, problem)
