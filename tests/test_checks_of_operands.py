"""Ranks and lengths of constants that nodes read: refused in one line, so that no rule meets others."""

import numpy as np
import onnx
import pytest
from graphs import graph, random_weights

from onnx_tropnnc import compress
from onnx_tropnnc.errors import InputModelError
from onnx_tropnnc.graph.model_io import load

Shapes = dict[str, tuple[int, ...]]


def pictures(body: str, shapes: Shapes, **more: np.ndarray) -> onnx.ModelProto:
    return graph(body, random_weights(**shapes) | more, inputs="float[N, 4, 6, 6] x", outputs="y")


@pytest.mark.parametrize(
    ("body", "shapes", "lists", "reason"),
    [
        ("y = Conv(x, w)", {"w": (4, 4)}, {}, "w has the shape [4, 4], but the operator reads one of rank at least 3"),
        ("y = Conv(x, w)", {"w": (0, 4, 1, 1)}, {}, "w has the shape [0, 4, 1, 1] and no elements"),
        ("y = Conv(x, w, b)", {"w": (8, 4, 1, 1), "b": (7,)}, {}, "b has 7 numbers, but the weight makes 8 channels"),
        (
            "y = Conv(x, w, b)",
            {"w": (8, 4, 1, 1), "b": (1, 8)},
            {},
            "b has the shape [1, 8], but the operator reads one of rank 1",
        ),
        ("y = Conv <group = 3> (x, w)", {"w": (8, 2, 1, 1)}, {}, "its 3 groups do not divide the 8 channels"),
        ("y = Conv <group = 0> (x, w)", {"w": (8, 4, 1, 1)}, {}, "its 0 groups do not divide the 8 channels"),
        ("y = ConvTranspose(x, w, b)", {"w": (4, 8, 1, 1), "b": (4,)}, {}, "b has 4 numbers, but the weight makes 8"),
        (
            "y = BatchNormalization(x, s, b, m, v)",
            {"s": (1, 4), "b": (4,), "m": (4,), "v": (4,)},
            {},
            "s has the shape [1, 4]",
        ),
        ("y = BatchNormalization(x, s, b, m, v)", {"s": (4,), "b": (4,), "m": (3,), "v": (4,)}, {}, "m has 3 numbers"),
        (
            "y = Pad(x, p)",
            {},
            {"p": [0] * 7},
            "p has the odd length 7, but a start and an end are needed for each axis",
        ),
        ("y = Pad(x, p, c)", {"c": (2,)}, {"p": [0] * 8}, "c has the shape [2], but one number is needed"),
        ("y = Slice(x, p, q)", {}, {"p": [0], "q": [1, 2]}, "q has 2 numbers, but its constant p has 1"),
        ("y = Clip(x, c)", {"c": (2,)}, {}, "c has the shape [2], but one number is needed"),
        ("y = Clip(x, c)", {"c": (0,)}, {}, "c has the shape [0], but one number is needed"),
        ("y = Reshape(x, p)", {}, {"p": [[1, -1]]}, "p has the shape [1, 2], but the operator reads one of rank 1"),
    ],
)
def test_broken_operands(body: str, shapes: Shapes, lists: dict[str, list[int]], reason: str) -> None:
    model = pictures(body, shapes, **{name: np.array(values, np.int64) for name, values in lists.items()})
    with pytest.raises(InputModelError) as error:
        compress(model, ratio=0.5, verify=False)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "shapes"),
    [
        ("y = Clip(x, c)", {"c": ()}),
        ("y = Clip(x, c)", {"c": (1,)}),
        ("y = Conv <group = 2> (x, w, b)", {"w": (8, 2, 3, 3), "b": (8,)}),
        ("y = ConvTranspose <group = 2> (x, w, b)", {"w": (4, 3, 2, 2), "b": (6,)}),
        ("y = BatchNormalization(x, s, b, m, v)", {"s": (4,), "b": (4,), "m": (4,), "v": (4,)}),
    ],
)
def test_sound_operands(body: str, shapes: Shapes) -> None:
    load(pictures(body, shapes))


def test_operands_of_functions_are_looked_at_once_they_are_inlined() -> None:
    model = pictures("y = Own.Bounded(x, c)", {"c": (2,)})
    body = onnx.helper.make_function(
        *("Own", "Bounded", ["a", "b"], ["z"], [onnx.helper.make_node("Clip", ["a", "b"], ["z"])]),
        [onnx.helper.make_opsetid("", 17)],
    )
    model.functions.append(body)
    model.opset_import.append(onnx.helper.make_opsetid("Own", 1))
    with pytest.raises(InputModelError, match=r"c has the shape \[2\], but one number is needed"):
        compress(model, ratio=0.5, verify=False)
