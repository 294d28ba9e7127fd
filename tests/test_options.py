"""What options say together."""

import pytest

from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.options import Options


@pytest.mark.parametrize(
    ("options", "ties"),
    [
        ({"ratio": 0.3}, "keep"),
        ({"threshold": 1.0}, "keep"),
        ({"max_drop": 1.0}, "keep"),
        ({"target_params": 0.5}, "merge"),
        ({"target_macs": 0.5}, "merge"),
        ({"target_params": 0.5, "method": "tropnnc"}, "keep"),
        ({"target_params": 0.5, "reconstruct": "off"}, "keep"),
        ({"lossless": True}, "merge"),
        ({"ratio": 0.3, "ties": "merge"}, "merge"),
        ({"target_params": 0.5, "ties": "keep"}, "keep"),
    ],
)
def test_ties_follow_the_budget_where_error_curves_decide(options: dict[str, object], ties: str) -> None:
    assert Options(**options).selection.ties == ties


def test_unknown_ways_with_ties() -> None:
    with pytest.raises(OptionError, match="--ties cut: unknown; choose auto, keep or merge"):
        Options(ratio=0.3, ties="cut")
