"""What the command reads from the texts of options, and how it refuses other texts."""

import pytest

from onnx_tropnnc.command.parsing import parse_input_range, parse_input_shape, parse_sweep
from onnx_tropnnc.errors import OptionError


def test_input_shape_is_parsed_with_colons_in_names() -> None:
    assert parse_input_shape("input:0:1,224,224,3") == ("input:0", (1, 224, 224, 3))


@pytest.mark.parametrize("text", ["x", "x:", ":1,2", "x:1,,2", "x:0,3", "x:1,-3", "x:a", "x:1.5", "x:²"])
def test_bad_input_shapes_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="write NAME:1,3,224,224"):
        parse_input_shape(text)


def test_input_range_is_parsed() -> None:
    assert parse_input_range("a:b:-1,2.5") == ("a:b", (-1.0, 2.5))


@pytest.mark.parametrize("text", ["x", "x:1", "x:1,2,3", "x:2,1", "x:1,1", "x:nan,1", "x:0,inf", ":0,1", "x:a,b"])
def test_bad_input_ranges_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="write NAME:LOW,HIGH"):
        parse_input_range(text)


@pytest.mark.parametrize(
    ("text", "amount", "values"),
    [
        ("0.1:0.3:0.1", "ratio", (0.1, 0.2, 0.3)),
        ("ratio=0.1:0.25:0.1", "ratio", (0.1, 0.2)),
        ("target-params=0.9:0.7:0.1", "target_params", (0.9, 0.8, 0.7)),
        ("target-macs=0.9:0.7:-0.1", "target_macs", (0.9, 0.8, 0.7)),
        ("threshold=1:1:1", "threshold", (1.0,)),
    ],
)
def test_values_of_a_sweep(text: str, amount: str, values: tuple[float, ...]) -> None:
    assert parse_sweep(text) == (amount, values)


@pytest.mark.parametrize("text", ["0.1", "0.1:0.3", "0.1:0.3:0", "a:b:c", "max-drop=1:2:1", "0:0.9:0.0001", "0:1:nan"])
def test_sweeps_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--sweep "):
        parse_sweep(text)
