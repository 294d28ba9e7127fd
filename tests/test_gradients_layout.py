"""Gradients of what moves, repeats or picks values, against finite differences."""

import numpy as np
import pytest
from finite_differences import PICTURE, assert_gradients, ints
from graphs import graph, random_weights

from onnx_tropnnc.gradients.backward import gradient_graph
from onnx_tropnnc.graph.model_io import load

LAYOUTS = {
    "reshape": f"{ints(s=[0, 6, -1])} y = Reshape(x, s)",
    "flatten": "y = Flatten(x)",
    "transpose": "y = Transpose <perm = [2, 0, 3, 1]> (x)",
    "transpose to the reverse": "y = Transpose(x)",
    "unsqueeze": f"{ints(a=[1, 3])} y = Unsqueeze(x, a)",
    "squeeze": f"{ints(a=[2, 3])} p = GlobalAveragePool(x) y = Squeeze(p, a)",
    "concat": "r = Relu(x) y = Concat <axis = 1> (x, r, x)",
    "split": "a, b = Split <axis = 1> (x) y = Mul(a, b)",
    "split, a part unused": f"{ints(s=[1, 3])} a, y = Split <axis = 1> (x, s)",
    "slice": f"{ints(b=[1, -6], e=[9, -1], a=[2, 3])} y = Slice(x, b, e, a)",
    "slice with steps": f"{ints(b=[1, -1], e=[9, -20], a=[2, 3], s=[3, -2])} y = Slice(x, b, e, a, s)",
    "slice backwards": f"{ints(b=[-1], e=[-9223372036854775807], a=[3], s=[-1])} y = Slice(x, b, e, a, s)",
    "slice nothing": f"{ints(b=[3], e=[3], a=[2])} e2 = Slice(x, b, e, a) y = Concat <axis = 2> (e2, x)",
    "pad": f"{ints(p=[0, 1, 0, 2, 0, 3, 1, 0])} y = Pad(x, p)",
    "pad by reflection": f'{ints(p=[0, 0, 1, 2, 0, 0, 3, 0])} y = Pad <mode = "reflect"> (x, p)',
    "pad by the edge": f'{ints(p=[0, 0, 1, 2, 0, 0, 3, 0])} y = Pad <mode = "edge"> (x, p)',
    "gather": f"{ints(i=[2, 0, 2, -1])} y = Gather <axis = 1> (x, i)",
    "gather one": "i = Constant <value_int = 2> () y = Gather <axis = 2> (x, i)",
    "expand": f"{ints(s=[3, 5, 4, 9, 8])} y = Expand(x, s)",
    "tile": f"{ints(r=[1, 2, 1, 3])} y = Tile(x, r)",
    "depth to space": "y = DepthToSpace <blocksize = 2> (x)",
    "depth to space by rows": 'y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)',
    "space to depth": f"{ints(b=[0], e=[8], a=[2])} c = Slice(x, b, e, a) y = SpaceToDepth <blocksize = 2> (c)",
    "resize by whole numbers": (
        "r = Constant <value_floats = [1., 1., 2., 3.]> () "
        'y = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , r)'
    ),
    "resize to a size": f"{ints(z=[5, 4, 13, 6])} y = Resize(x, , , z)",
    "resize linearly": 'r = Constant <value_floats = [1., 1., 2., 2.]> () y = Resize <mode = "linear"> (x, , r)',
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_what_moves_values(case: str) -> None:
    assert_gradients(graph(LAYOUTS[case], opset=17, **PICTURE | {"outputs": "float y"}))


def test_rows_of_a_table_are_looked_up() -> None:
    model = graph("y = Gather(table, x)", random_weights(table=(9, 4)), inputs="int64[N] x", outputs="float[N, P] y")
    assert_gradients(model, ["table"], {"x": np.asarray([3, 1, 3, 8, 0])})


@pytest.mark.parametrize(
    "text",
    [f"{ints(b=[5], e=[99990], a=[1], s=[7])} y = Slice(x, b, e, a, s)", f"{ints(p=[0, 9, 0, 9])} y = Pad(x, p)"],
)
def test_long_axes_need_no_large_constants(text: str) -> None:
    model = graph(text, inputs="float[2, 100000] x", outputs="float[2, M] y")
    found = gradient_graph(load(model), ["y"], ["x"], {"x": (2, 100000)})
    assert set(found.gradients) == {"x"}
    assert found.proto.ByteSize() < 10**5
