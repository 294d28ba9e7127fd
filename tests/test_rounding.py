"""Counts that a runtime likes: which multiple a group takes, and that every way to decide keeps to it."""

import numpy as np
import pytest
from graphs import graph, groups_of, random_weights
from hypothesis import given
from hypothesis import strategies as st

from onnx_tropnnc import compress
from onnx_tropnnc.analysis.rounding import EXACTLY, Rounding
from onnx_tropnnc.changes import Merged
from onnx_tropnnc.passes import MergeChannels

KINDS = Rounding(convolution=4, depthwise=8, linear=2)


def depthwise() -> object:
    weights = random_weights(a=(20, 2, 3, 3), d=(20, 1, 3, 3), b=(12, 20, 1, 1), u=(12, 3))
    body = "c = Conv(x, a) e = Conv<group = 20>(c, d) r = Relu(e) f = Conv(r, b) g = GlobalAveragePool(f) "
    io = {"inputs": "float[N, 2, 8, 8] x", "outputs": "float[N, 3] y"}
    return graph(f"{body} h = Flatten(g) y = MatMul(h, u)", weights, **io)


def dense() -> object:
    weights = random_weights(w=(4, 22), k=(22,), u=(22, 3))
    return graph("c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u)", weights)


def counts(model: object, **options: object) -> dict[str, int]:
    _, report = compress(model, verify=False, **options)  # type: ignore[arg-type]
    return {change.group: change.after for change in report.of(Merged)}


def test_a_group_takes_the_largest_multiple_of_its_layers() -> None:
    groups = groups_of(depthwise())
    assert {name: KINDS.multiple(group) for name, group in groups.items()} == {"Conv_0": 8, "Conv_3": 4, "MatMul_6": 2}
    assert KINDS.multiple(groups_of(dense())["Gemm_0"]) == 2
    assert EXACTLY.multiple(groups["Conv_0"]) == 1


@given(most=st.integers(1, 300), multiple=st.integers(1, 32), beside=st.integers(0, 20), data=st.data())
def test_rounding_goes_up_to_a_multiple_and_never_above_what_there_is(
    most: int, multiple: int, beside: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, most))
    found = Rounding.up(count, most, multiple, beside)
    assert count <= found <= most
    assert found == most or ((found + beside) % multiple == 0 and found - count < multiple)


@pytest.mark.parametrize("method", ["tropnnc", "l1", "select"])
def test_a_ratio_keeps_multiples(method: str) -> None:
    exact = {"ratio": 0.5, "method": method, "reconstruct": "auto" if method == "select" else "off"}
    assert counts(depthwise(), **exact) == {"Conv_0": 10, "Conv_3": 6}
    assert counts(depthwise(), **exact, round_to=KINDS) == {"Conv_0": 16, "Conv_3": 8}
    assert counts(depthwise(), **exact, round_to=5) == {"Conv_0": 10, "Conv_3": 10}
    assert counts(depthwise(), **exact, round_to=64) == {}


@pytest.mark.parametrize("method", ["tropnnc", "l1", "select"])
def test_a_budget_keeps_multiples_and_is_met(method: str) -> None:
    options = {"method": method, "reconstruct": "auto" if method == "select" else "off"}
    model = depthwise()
    _, report = compress(model, target_macs=0.6, round_to=4, verify=False, **options)  # type: ignore[arg-type]
    assert report.before.macs is not None
    assert report.after.macs is not None
    assert report.after.macs <= 0.6 * report.before.macs
    assert report.of(Merged)
    assert all(change.after % 4 == 0 for change in report.of(Merged))


@pytest.mark.parametrize("threshold", [0.5, 2.0, 4.0, 5.0, 6.0, 7.0, 9.0])
def test_a_threshold_keeps_multiples_and_merges_no_more_than_it_would(threshold: float) -> None:
    options = {"threshold": threshold, "method": "tropnnc", "reconstruct": "off"}
    exact = counts(dense(), **options).get("Gemm_0", 22)
    rounded = counts(dense(), **options, round_to=5).get("Gemm_0", 22)
    assert rounded == min(22, -(-exact // 5) * 5)


def test_channels_that_always_stay_are_counted_in() -> None:
    """Channel 0 goes to the output as it is, beside 19 that may be merged."""
    weights = random_weights(a=(20, 2, 1, 1), b=(3, 20, 1, 1))
    body = "c = Conv(x, a) s = Constant<value = int64[2] {1, 19}> () y0, z = Split<axis = 1>(c, s)"
    model = graph(
        f"{body} q = Relu(c) y = Conv(q, b)",
        weights,
        inputs="float[N, 2, 4, 4] x",
        outputs="float[N, 3, 4, 4] y, float[N, 1, 4, 4] y0",
    )
    group = groups_of(model)["Conv_0"]
    assert int((group.blocks < 0).sum()) == 1
    for method in ("tropnnc", "select"):
        reconstruct = "auto" if method == "select" else "off"
        assert counts(model, ratio=0.5, method=method, reconstruct=reconstruct, round_to=8) == {"Conv_0": 16}


def test_the_pass_alone_rounds_too() -> None:
    from graphs import after, dims

    model, _ = after(dense(), MergeChannels(ratio=0.5, rounding=Rounding.to(8)))
    assert dims(model)["w"] == (4, 16)
    assert np.isfinite(np.asarray(dims(model)["u"])).all()
