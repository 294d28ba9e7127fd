"""onnx's stored test models: simple and PyTorch's with inputs and expected outputs, and the light zoo models.

At ratio 0 nothing that is expected may change, at ratio 0.5 the result must run or be the unchanged model.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from .outcomes import Arrays, Outcome, attempt, run

__all__ = ["light_names", "model_names", "stored_model"]

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
FOLDERS = ("simple", "pytorch-converted", "pytorch-operator")


def model_names() -> list[str]:
    """Return every stored test with its inputs."""
    found = (path.parent for folder in FOLDERS for path in DATA.glob(f"{folder}/*/model.onnx"))
    return sorted(f"{path.parent.name}/{path.name}" for path in found)


def light_names() -> list[str]:
    """Return the zoo's models without their weights, which a node makes; they take a while."""
    return sorted(f"light/{path.stem}" for path in DATA.glob("light/*.onnx"))


def stored_model(name: str) -> Outcome:
    """Return the model compressed at ratio 0 and 0.5."""
    path = DATA / f"{name}.onnx" if name.startswith("light/") else DATA / name / "model.onnx"
    model = onnx.load(path)
    feeds = _dummies(model) if name.startswith("light/") else _stored(model, path.parent)
    if feeds is None:
        return Outcome(name, skipped="inputs that are no tensors")
    expected = run(model, feeds)
    if isinstance(expected, str):
        return Outcome(name, skipped=expected)
    exact, half = attempt(model, 0.0, feeds, expected), attempt(model, 0.5, feeds, None)
    return Outcome(name, exact.problem or half.problem, merged=half.smaller)


def _read_by_callers(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def _stored(model: onnx.ModelProto, folder: Path) -> Arrays | None:
    return dict(_tensors(model, folder)) if (folder / "test_data_set_0").is_dir() else None


def _tensors(model: onnx.ModelProto, folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    for number, value in enumerate(_read_by_callers(model)):
        path = folder / "test_data_set_0" / f"input_{number}.pb"
        if path.is_file() and value.type.HasField("tensor_type"):
            yield value.name, numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def _dummies(model: onnx.ModelProto) -> Arrays:
    """As onnx's own runner makes them: 0 to 1 in even steps."""
    shapes = {v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim] for v in _read_by_callers(model)}
    return {name: np.linspace(0, 1, int(np.prod(s)), False, dtype=np.float32).reshape(s) for name, s in shapes.items()}
