"""compress(): the passes in their order, and what it promises."""

import contextlib
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from channel_edits import free_groups, inflated
from graphs import after, assert_same_outputs, assert_sound, dims, graph, mlp, operators, random_weights

import onnx_tropnnc as tropnnc
from onnx_tropnnc import compress, default_passes
from onnx_tropnnc.backend import missing_cuda
from onnx_tropnnc.changes import Folded, Kept, Merged, Note
from onnx_tropnnc.engine import Compression
from onnx_tropnnc.errors import InputModelError, OptionError, SampleError
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.inputs.samples import VERIFYING
from onnx_tropnnc.options import Options


def with_batch_norm() -> onnx.ModelProto:
    weights = random_weights(w=(4, 2, 3, 3), g=(4,), b=(4,), m=(4,), v=(4,), u=(3, 4, 1, 1))
    io = {"inputs": "float[N, 2, 6, 6] x", "outputs": "float[N, 3, P, Q] y"}
    return graph("c = Conv(x, w) d = BatchNormalization(c, g, b, m, v) e = Relu(d) y = Conv(e, u)", weights, **io)


@pytest.mark.parametrize("kind", ["proto", "bytes", "path"])
def test_models_come_as_proto_bytes_or_path(tmp_path: Path, kind: str) -> None:
    model = mlp()
    onnx.save(model, tmp_path / "in.onnx")
    source = {"proto": model, "bytes": model.SerializeToString(), "path": tmp_path / "in.onnx"}[kind]
    result, report = compress(source, ratio=0.5)
    assert dims(result)["w"] == (4, 4)
    assert report.verification is not None
    assert report.verification.outputs[0].name == "y"


def test_the_default_passes_can_be_run_one_by_one() -> None:
    names = [step.name for step in default_passes(Options(ratio=0.5))]
    assert names[:3] == ["inline functions", "name tensors of bodies apart", "write weights plainly"]
    assert names[3:5] == ["write shapes plainly", "write layouts plainly"]
    assert names[5:7] == ["drop casts that change nothing", "fold BatchNormalization"]
    assert names[-2:] == ["refresh shapes", "verify outputs"]
    result, report = tropnnc.PassManager(default_passes(Options(ratio=0.5, verify=False))).run(with_batch_norm())
    assert operators(result) == ["Conv", "Relu", "Conv"]
    assert len(report.of(Folded)) == 1
    assert_sound(result)


def test_folding_and_merging_end_to_end() -> None:
    model = with_batch_norm()
    result, report = compress(model, ratio=0.5)
    assert (dims(result)["w"], dims(result)["u"][1]) == ((2, 2, 3, 3), 2)
    assert [change.after for change in report.of(Merged)] == [2]
    assert_sound(result)
    assert_same_outputs(model, compress(model, ratio=0.0)[0])


@pytest.mark.parametrize("method", ["auto", "tropnnc", "tropnnc-iterative", "select"])
def test_exact_duplicates_merge_exactly_by_every_method(method: str) -> None:
    folded = compress(with_batch_norm(), ratio=0.0, verify=False)[0]
    wide = inflated(folded, "Conv_0", (2, 2, 2, 2), np.random.default_rng(0))
    result, report = compress(wide, ratio=0.5, method=method)
    assert free_groups(result) == free_groups(folded)
    assert report.verification is not None
    assert_same_outputs(wide, result, 1e-4)


def test_the_given_model_is_never_changed() -> None:
    model = with_batch_norm()
    untouched = model.SerializeToString()
    compress(model, ratio=0.5)
    assert model.SerializeToString() == untouched


def test_without_samples_the_reason_is_said() -> None:
    """A size that cannot be guessed: compressed all the same, not verified."""
    model = graph(
        "c = Conv(x, w) y = Flatten(c)", random_weights(w=(3, 2, 3, 3)), inputs="float x", outputs="float[N, M] y"
    )
    model.graph.input[0].type.tensor_type.ClearField("shape")
    _, report = compress(model, ratio=0.5)
    assert report.verification is not None
    assert "does not say how many dimensions" in (report.verification.not_verified or "")
    assert report.passed


def test_options_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'ration'"):
        compress(mlp(), ration=0.5)
    with pytest.raises(OptionError, match="exactly one of ratio="):
        compress(mlp())
    with pytest.raises(OptionError, match="exactly one of ratio="):
        compress(mlp(), ratio=0.5, threshold=1.0)
    with pytest.raises(OptionError, match=r"outside \[0, 1\)"):
        compress(mlp(), ratio=1.0)
    with pytest.raises(OptionError, match="method='magic' is unknown"):
        compress(mlp(), ratio=0.5, method="magic")


def test_samples_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((5, 9), np.float32))
    with pytest.raises(SampleError, match="x"):
        compress(mlp(), ratio=0.5, data=tmp_path / "data.npz")
    with pytest.raises(SampleError, match="x"):
        compress(mlp(), ratio=0.5, input_shape={"x": (1, 9)})


def test_broken_models_are_refused() -> None:
    with pytest.raises(InputModelError):
        compress(b"nothing", ratio=0.5)


def test_demands_undo_groups_until_they_hold() -> None:
    result, report = compress(mlp(), ratio=0.75, min_cosine=0.999999, reconstruct="off", method="tropnnc")
    assert report.passed
    assert dims(result) == dims(mlp())
    (kept,) = (c for c in report.to_dict()["kept"] if c["group"] == "Gemm_0")
    assert kept["reason"] == "undone, because verification fails with this merge"


def test_what_costs_nothing_is_not_undone() -> None:
    """Half of the first layer's channels are always zero: they go, though merging the second layer is too much."""
    weights = random_weights(w=(4, 8), u=(8, 8), t=(8, 3))
    weights["w"][:, ::2] = 0.0
    model = graph("c = MatMul(x, w) r = Relu(c) d = MatMul(r, u) s = Relu(d) y = MatMul(s, t)", weights)
    result, report = compress(model, ratio=0.5, min_cosine=0.999999, reconstruct="off", method="tropnnc")
    assert report.passed
    assert [(change.before, change.after) for change in report.of(Merged)] == [(8, 4)]
    assert dims(result)["w"] == (4, 4)


def test_what_is_left_after_undoing_learns_too() -> None:
    """Of a result whose second group was undone all weights learn, as those of the first result did."""
    weights = random_weights(w=(4, 8), u=(8, 8), t=(8, 3))
    weights["w"][:, ::2] = 0.0
    model = graph("c = MatMul(x, w) r = Relu(c) d = MatMul(r, u) s = Relu(d) y = MatMul(s, t)", weights)
    data = {"x": np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)}
    _, report = compress(model, ratio=0.5, data=data, min_cosine=0.999999, method="tropnnc", effort="standard")
    assert [change.reason.kind for change in report.of(Kept)].count("undone") == 1
    assert sum("tuned" in str(note) for note in report.of(Note)) == 1


def test_verification_can_be_left_out() -> None:
    assert compress(mlp(), ratio=0.5, verify=False)[1].verification is None


def test_merging_alone_gives_what_the_pipeline_gives_without_solving() -> None:
    result, _ = compress(mlp(), ratio=0.5, method="tropnnc", reconstruct="off", verify=False)
    alone, _ = after(mlp(), tropnnc.passes.MergeChannels(ratio=0.5), tropnnc.passes.RefreshShapes())
    assert_same_outputs(alone, result, 1e-6)


@pytest.mark.skipif(missing_cuda() is None, reason="there is a GPU here")
def test_without_a_gpu_the_cpu_does_the_work_and_says_so() -> None:
    result, report = compress(mlp(), ratio=0.5, device="cuda", verify=False)
    assert report.of(Note)[0] == Note(f"--device cuda: {missing_cuda()}; the CPU was used instead", "warning")
    assert result.SerializeToString() == compress(mlp(), ratio=0.5, device="cpu", verify=False)[0].SerializeToString()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_channels() -> None:
    _, there = compress(mlp(), ratio=0.5, device="cuda", reconstruct="off", method="tropnnc", round_to=1)
    _, here = compress(mlp(), ratio=0.5, device="cpu", reconstruct="off", method="tropnnc", round_to=1)
    assert not [note for note in there.of(Note) if "--device" in note.text]
    maps = [report.of(Merged)[0].merge_map.labels.tolist() for report in (there, here)]
    assert maps[0] == maps[1]


def old_network() -> onnx.ModelProto:
    weights = random_weights(w=(4, 8), k=(8,), u=(8, 3), z=(3,))
    return graph("c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u, z)", weights, opset=6)


def test_old_opsets_are_left_alone_by_every_caller() -> None:
    reason = "opset 6 is below 7: nothing was folded or merged; convert the model first"
    result, report = compress(old_network(), ratio=0.5)
    assert dims(result) == dims(old_network())
    assert [note.text for note in report.of(Note)] == [reason]
    found = Compression(load(old_network()), Options(ratio=0.5)).inspect()
    assert {why.text for why in found.refusals if why is not None} == {reason}
    assert found.coverage.share == 0.0
    (point,) = tropnnc.sweep(old_network(), "ratio", (0.5,)).points
    assert (point.refused, point.parameters) == (reason, None)


def test_an_inspection_sees_what_a_compression_merges() -> None:
    model = load(with_batch_norm())
    found = Compression(model, Options(ratio=0.5)).inspect()
    assert [node.op_type for node in model.graph] == ["Conv", "BatchNormalization", "Relu", "Conv"]
    free = [g.name for g, why in zip(found.groups, found.refusals, strict=True) if g.pinned is None and why is None]
    assert free == [change.group for change in compress(with_batch_norm(), ratio=0.5)[1].of(Merged)]


def solved_on(caplog: pytest.LogCaptureFixture) -> str:
    """Return what the log says of the samples to solve on."""
    (line,) = (text for record in caplog.records if (text := record.getMessage()).startswith("to solve on: "))
    return line.removeprefix("to solve on: ")


def test_no_samples_are_drawn_to_solve_on_where_nothing_can_be_removed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "onnx_tropnnc.engine"):
        result, report = compress(with_batch_norm(), ratio=0.5, exclude=("*",), effort="standard")
    assert solved_on(caplog) == "None"
    assert operators(result) == ["Conv", "Relu", "Conv"], "what is exact was done"
    assert not any("tuned" in str(change) for change in report.changes)
    assert report.verification is not None
    assert report.verification.samples == VERIFYING, "as many as verification needs"
    points = tropnnc.sweep(with_batch_norm(), "ratio", (0.5,), exclude=("*",)).points
    assert [point.cosine for point in points] == [pytest.approx(1.0)]


def test_all_given_samples_verify_where_nothing_can_be_removed() -> None:
    data = {"x": np.zeros((40, 2, 6, 6), np.float32)}
    _, report = compress(with_batch_norm(), ratio=0.5, exclude=("*",), data=data)
    assert report.verification is not None
    assert report.verification.samples == 40


@pytest.mark.parametrize("options", [{}, {"target_macs": 0.9, "factorize": True, "exclude": ("*",)}])
def test_samples_are_drawn_to_solve_on_where_something_may_go(
    options: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    asked = options or {"ratio": 0.5}
    with caplog.at_level(logging.DEBUG, "onnx_tropnnc.engine"), contextlib.suppress(OptionError):
        compress(with_batch_norm(), verify=False, **asked)
    assert solved_on(caplog) != "None"


@pytest.mark.parametrize("amount", ["target_latency", "max_drop"])
def test_a_list_of_passes_refuses_what_must_be_searched_for(amount: str) -> None:
    options = Options(**{amount: 0.5})
    with pytest.raises(OptionError, match=rf"^{amount}= is met by compressing several times, .*; call compress\(\)"):
        default_passes(options)
    with pytest.raises(OptionError, match=rf"^{amount}= is met by compressing several times, .*; call compress\(\)"):
        tropnnc.passes.CompressChannels(options)(load(mlp()))


def test_a_lone_pass_replays_the_plan_of_its_options() -> None:
    (merged,) = compress(mlp(), ratio=0.5)[1].of(Merged)
    model = load(mlp())
    tropnnc.passes.CompressChannels(Options(plan={merged.group: merged.merge_map}))(model)
    assert dims(to_proto(model))["w"] == (4, 4)


def test_the_log_says_what_was_decided(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "onnx_tropnnc"):
        compress(mlp(), ratio=0.5, verify=False)
    lines = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert ("onnx_tropnnc.passes.compress_channels", "DEBUG", "decided on 1 groups by maps, 0 by sizes") in lines
    assert any(level == "INFO" and line.startswith("compress channels: 1 Merged") for _, level, line in lines)


def test_patterns_that_match_nothing_are_warned_of_by_name() -> None:
    _, report = compress(mlp(), ratio=0.5, verify=False, exclude=("fc9*",), ratio_for=(("Relu*", 0.2), ("*", 0.3)))
    warnings = [note.text for note in report.of(Note) if note.level == "warning"]
    reason = "matches no layer that makes channels; --inspect lists their names"
    assert warnings == [f"--exclude fc9* {reason}", f"--ratio-for Relu* {reason}"]
    _, report = compress(mlp(), ratio=0.5, verify=False, include=("Gemm_0",), exclude=("*1",))
    assert [note.text for note in report.of(Note)] == [f"--exclude *1 {reason}"]
