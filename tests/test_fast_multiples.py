"""What counts onnxruntime is fast at: the rule on given times, and the measurement itself on this machine."""

import pytest

from onnx_tropnnc.analysis.rounding import Rounding
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.searching import fast_multiples as measuring
from onnx_tropnnc.searching.fast_multiples import GPU_MULTIPLE, MULTIPLES, fast_multiples, free_multiple


@pytest.mark.parametrize(
    ("times", "multiple"),
    [
        ((1.41, 1.34, 0.42, 0.41, 0.42), 16),  # depthwise, blocks of 16
        ((1.41, 1.34, 0.42, 0.41, 0.49), 8),  # ... of 8
        ((1.00, 1.02, 1.05, 1.20, 1.40), 4),  # every channel costs its share, 6 % is chance
        ((1.0, 1.2, 1.4, 1.6, 1.8), 1),
        ((5.0, 1.0, 5.0, 5.0, 1.0), 16),
    ],
)
def test_the_largest_multiple_that_costs_no_time(times: tuple[float, ...], multiple: int) -> None:
    assert free_multiple(MULTIPLES, times) == multiple


def test_the_measurement_is_taken_once_and_is_one_of_the_multiples() -> None:
    found = fast_multiples()
    assert {found.convolution, found.depthwise} <= set(MULTIPLES)
    assert found.linear == 1
    assert fast_multiples("auto") is found


def test_gpus_are_known() -> None:
    assert fast_multiples("cuda") == Rounding.to(GPU_MULTIPLE)


def test_nothing_is_measured_without_a_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "runtime_missing", lambda: "onnxruntime is not installed")
    with pytest.raises(OptionError, match="round_to='auto' measures onnxruntime: onnxruntime is not installed"):
        fast_multiples()
