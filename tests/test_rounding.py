"""Counts that a runtime likes: which multiple a group takes, and that every way to decide keeps to it."""

import numpy as np
import onnx
import pytest
from graphs import graph, groups_of, mlp, random_weights
from hypothesis import given
from hypothesis import strategies as st

from onnx_tropnnc import compress
from onnx_tropnnc.analysis.rounding import EXACTLY, Rounding
from onnx_tropnnc.analysis.rounding_presets import PRESETS, preset_of, rounding_named
from onnx_tropnnc.changes import Merged, Note
from onnx_tropnnc.choices import RoundingPreset
from onnx_tropnnc.options import Options
from onnx_tropnnc.passes import MergeChannels

KINDS = Rounding(convolution=4, depthwise=8, linear=2)


def depthwise() -> object:
    weights = random_weights(a=(20, 2, 3, 3), d=(20, 1, 3, 3), b=(12, 20, 1, 1), u=(12, 3))
    body = "c = Conv(x, a) e = Conv<group = 20>(c, d) r = Relu(e) f = Conv(r, b) g = GlobalAveragePool(f) "
    io = {"inputs": "float[N, 2, 8, 8] x", "outputs": "float[N, 3] y"}
    return graph(f"{body} h = Flatten(g) y = MatMul(h, u)", weights, **io)


def counts(model: object, **options: object) -> dict[str, int]:
    _, report = compress(model, verify=False, **options)  # type: ignore[arg-type]
    return {change.group: change.after for change in report.of(Merged)}


def test_a_group_takes_the_largest_multiple_of_its_layers() -> None:
    groups = groups_of(depthwise())
    assert {name: KINDS.multiple(group) for name, group in groups.items()} == {"Conv_0": 8, "Conv_3": 4, "MatMul_6": 2}
    assert KINDS.multiple(groups_of(mlp(22))["Gemm_0"]) == 2
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
    exact = {"ratio": 0.5, "method": method, "reconstruct": "auto" if method == "select" else "off", "uniform": True}
    assert counts(depthwise(), **exact, round_to=1) == {"Conv_0": 10, "Conv_3": 6}
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
    exact = counts(mlp(22), **options).get("Gemm_0", 22)
    rounded = counts(mlp(22), **options, round_to=5).get("Gemm_0", 22)
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

    model, _ = after(mlp(22), MergeChannels(ratio=0.5, rounding=Rounding.to(8)))
    assert dims(model)["w"] == (4, 16)
    assert np.isfinite(np.asarray(dims(model)["u"])).all()


def chain(channels: int, group: int = 1, op: str = "Conv", kernel: int = 1) -> onnx.ModelProto:
    """Return a model with a group of so many channels, made by a convolution and read by a grouped or depthwise one."""
    a, b = (channels * (1 if group in (1, channels) else group) for _ in range(2))
    sides = kernel, kernel
    weights = random_weights(a=(a, 2, *sides), b=(b, a // group, *sides), c=(3, b, *sides))
    pads = f"pads = {[kernel // 2] * 4}"
    body = (
        f"p = Conv<{pads}>(x, a) q = Relu(p) r = {op}<group = {group}, {pads}>(q, b) s = Relu(r) y = Conv<{pads}>(s, c)"
    )
    return graph(body, weights, inputs="float[N, 2, 4, 4] x", outputs="float[N, 3, 4, 4] y")


@pytest.mark.parametrize(
    ("channels", "multiple"), [(4, 1), (8, 4), (16, 4), (24, 4), (32, 8), (48, 8), (64, 16), (512, 16)]
)
def test_narrow_groups_take_smaller_multiples(channels: int, multiple: int) -> None:
    wide = PRESETS["onnxruntime-cpu"]
    # less than a block is read by slow kernels where a kernel has a single element, and behind a depthwise convolution
    least = 16 if 16 <= channels < 32 else multiple
    for kernel, group, expected in ((3, 1, multiple), (1, 1, least), (3, channels, least)):
        found = groups_of(chain(channels, group, kernel=kernel)).values()
        assert {wide.multiple(group) for group in found if group.pinned is None} == {expected}
    assert Rounding.to(16).multiple(groups_of(chain(channels))["Conv_0"]) == 16


def test_groups_of_a_grouped_convolution_stay_whole_blocks() -> None:
    wide = PRESETS["onnxruntime-cpu"]
    assert {wide.multiple(group) for group in groups_of(chain(32, group=2)).values()} >= {16}
    assert 16 not in {wide.multiple(group) for group in groups_of(chain(24, group=2, kernel=3)).values()}


@pytest.mark.parametrize(
    ("preset", "kept"),
    [
        ("onnxruntime-cpu", {"Conv_0": 48, "Conv_2": 48}),
        ("onnxruntime-cpu-avx512", {"Conv_0": 48, "Conv_2": 48}),
        ("onnxruntime-cpu-avx2", {"Conv_0": 40, "Conv_2": 40}),
        ("cuda", {"Conv_0": 40, "Conv_2": 40}),
        ("tensorrt", {"Conv_0": 48, "Conv_2": 48}),
        ("openvino", {"Conv_0": 48, "Conv_2": 48}),
        ("arm", {"Conv_0": 40, "Conv_2": 40}),
        (1, {"Conv_0": 38, "Conv_2": 38}),
    ],
)
def test_presets_keep_exactly_so_many(preset: object, kept: dict[str, int]) -> None:
    assert counts(chain(64), ratio=0.4, method="l1", reconstruct="off", round_to=preset) == kept


def test_the_default_is_the_preset_of_this_processor_and_leaves_linear_layers_alone() -> None:
    options = {"ratio": 0.4, "method": "l1", "reconstruct": "off"}
    assert counts(chain(64), **options) == counts(chain(64), **options, round_to=rounding_named("auto"))
    assert counts(mlp(22), **options) == {"Gemm_0": 13}
    assert rounding_named("auto", "cuda") == PRESETS["cuda"]


def test_smaller_multiples_serve_where_parameters_are_to_be_saved() -> None:
    for device in ("cpu", "cuda"):
        assert Options(target_params=0.5, device=device).rounding == rounding_named("auto", device, for_size=True)
        assert Options(target_macs=0.5, device=device).rounding == rounding_named("auto", device)
    assert Options(target_params=0.5, round_to="tensorrt").rounding == PRESETS["tensorrt"]
    sized, plain = rounding_named("auto", "cuda", for_size=True), PRESETS["cuda"]
    group = groups_of(chain(64, kernel=3))["Conv_0"]
    assert (sized.multiple(group), plain.multiple(group)) == (4, 8)


@pytest.mark.parametrize(
    ("machine", "features", "preset"),
    [
        ("x86_64", {"AVX2": True, "AVX512F": True}, "onnxruntime-cpu-avx512"),
        ("AMD64", {"AVX2": True}, "onnxruntime-cpu-avx2"),
        ("x86_64", {}, "onnxruntime-cpu-avx2"),
        ("aarch64", {"NEON": True}, "arm"),
        ("arm64", {"ASIMD": True}, "arm"),
    ],
)
def test_a_processor_has_the_preset_of_its_features(machine: str, features: dict[str, bool], preset: str) -> None:
    assert preset_of(machine, features) == preset


def test_the_report_states_the_multiples_where_there_are_some() -> None:
    def notes(model: object, **options: object) -> list[str]:
        _, report = compress(model, verify=False, reconstruct="off", **options)  # type: ignore[arg-type]
        return [note.text for note in report.of(Note) if "rounded" in note.text]

    assert notes(chain(64), ratio=0.4, round_to="arm") == [
        "channel counts are rounded up to multiples of 8 (Conv, depthwise Conv), 1 (linear), "
        "smaller ones where a layer has fewer than 32 channels (--round-to arm)"
    ]
    assert len(notes(chain(64), ratio=0.4)) == 1
    assert notes(chain(64), ratio=0.4, round_to=1) == []
    assert notes(chain(64), lossless=True) == []
    assert notes(mlp(22), ratio=0.4) == []


def test_the_verdict_names_the_rounding_that_keeps_what_a_ratio_would_remove() -> None:
    def verdict(ratio: float, round_to: int | RoundingPreset) -> tuple[str, str]:
        _, report = compress(chain(64), ratio=ratio, round_to=round_to, reconstruct="off", verify=False)
        return report.verdict.grade, report.verdict.advice

    advice = (
        "--round-to 1 removes more: rounding keeps 12 of the 12 channels that equal shares of the layers would lose."
    )
    assert verdict(0.1, 64) == ("unchanged", advice)
    assert "--round-to" not in verdict(0.5, 16)[1]
    assert "--round-to" not in verdict(0.1, 1)[1]
