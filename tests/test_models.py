"""The cards in models/README.md say what the files are: every figure is counted again here."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

MODELS = Path(__file__).parent.parent / "models"
NAMES = sorted(path.stem for path in MODELS.glob("*.onnx"))
SIZE_LIMIT = 3_000_000

TestImages = Callable[[str], tuple[NDArray[np.float32], NDArray[np.int64]]]
TrainedModel = Callable[[str], onnx.ModelProto]


def cards() -> dict[str, dict[str, str]]:
    """`## NAME` and the two-column table below it, one a model: {"mnist_lenet": {"parameters": "61,706", ...}, ...}."""
    text = (MODELS / "README.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    row = re.compile(r"^\| (\w[^|]*?) \| ([^|]*?) \|$", re.MULTILINE)
    return {section.split("\n", 1)[0]: dict(row.findall(section)) for section in sections}


def number(text: str) -> float:
    """`number("61,706 bytes")` is 61706.0."""
    return float(text.split()[0].replace(",", ""))


def right_answers(path: Path, images: NDArray[np.float32], labels: NDArray[np.int64]) -> int:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"image": images})
    return int(np.sum(scores.argmax(axis=1) == labels))


def operators(model: onnx.ModelProto) -> dict[str, int]:
    kinds = [node.op_type for node in model.graph.node]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds) - {"Constant"})}


def test_every_model_has_a_card_and_every_card_a_model() -> None:
    assert sorted(cards()) == NAMES
    assert len(NAMES) == 5


@pytest.mark.parametrize("name", NAMES)
def test_size_and_parameters_are_the_cards(name: str, trained_model: TrainedModel) -> None:
    card, path = cards()[name], MODELS / f"{name}.onnx"
    initializers = trained_model(name).graph.initializer
    assert path.stat().st_size == number(card["file size"]) < SIZE_LIMIT
    assert sum(int(np.prod(tensor.dims)) for tensor in initializers) == number(card["parameters"])


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_is_the_cards(name: str, test_images: TestImages) -> None:
    images, labels = test_images(name.split("_")[0])
    count = right_answers(MODELS / f"{name}.onnx", images, labels)
    # one image of leeway: another runtime version may round a near-tie the other way
    assert abs(count - number(cards()[name]["right of the shipped test images"])) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_file_tells_what_its_card_tells(name: str, trained_model: TrainedModel) -> None:
    card, model = cards()[name], trained_model(name)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert float(told["top_1"]) == number(card["top-1"]) >= 97
    assert told["licence"] == card["licence"] == "MIT"
    assert f"`{told['made_by']}`" == card["made by"]
    assert model.doc_string


@pytest.mark.parametrize("name", NAMES)
def test_models_are_valid_with_a_free_batch_axis(name: str, trained_model: TrainedModel) -> None:
    model = trained_model(name)
    onnx.checker.check_model(model, full_check=True)
    (entry,), (result,) = model.graph.input, model.graph.output
    side = 28 if name.startswith("mnist") else 8
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in (entry, result)]
    assert (entry.name, result.name) == ("image", "scores")
    assert shapes == [["N", 1, side, side], ["N", 10]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist_deepnn", {"Flatten": 1, "Gemm": 4, "Relu": 3}),
        ("mnist_deepcnn2d", {"Conv": 2, "Flatten": 1, "Gemm": 2, "MaxPool": 2, "Relu": 3}),
        ("mnist_lenet", {"AveragePool": 2, "Conv": 2, "Flatten": 1, "Gemm": 3, "Tanh": 4}),
        (
            "digits_resnet_bn",
            {
                "Add": 3,
                "BatchNormalization": 8,
                "Conv": 8,
                "Flatten": 1,
                "Gemm": 1,
                "GlobalAveragePool": 1,
                "Identity": 1,
                "Relu": 7,
            },
        ),
        (
            "digits_depthwise",
            {"BatchNormalization": 9, "Clip": 9, "Conv": 9, "Flatten": 1, "Gemm": 1, "GlobalAveragePool": 1},
        ),
    ],
)
def test_graphs_hold_the_operators_they_are_here_for(
    name: str, expected: dict[str, int], trained_model: TrainedModel
) -> None:
    assert operators(trained_model(name)) == expected


def test_shipped_images_are_small_and_within_zero_and_one(test_images: TestImages) -> None:
    for name, count in (("mnist", 500), ("digits", 360)):
        images, labels = test_images(name)
        assert (MODELS / f"{name}_test.npz").stat().st_size < 200_000
        assert (len(images), images.dtype, images.min(), images.max()) == (count, np.float32, 0.0, 1.0)
        assert sorted(set(labels.tolist())) == list(range(10))
