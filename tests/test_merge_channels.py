"""Merging channels as a pass: which groups, how many channels, what is said of it."""

import dataclasses

import numpy as np
import onnx
import pytest
from channel_edits import inflated
from graphs import after, assert_same_outputs, assert_sound, dims, graph, initializers, random_weights, twice

from onnx_tropnnc.analysis.group_filter import GroupFilter
from onnx_tropnnc.changes import Change, Kept, Merged
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model_io import load, to_proto
from onnx_tropnnc.merging.clustering import Threshold
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.merging.representatives import METHODS, Iterative
from onnx_tropnnc.passes import MergeChannels, RefreshShapes

NAMES = ("fc1", "act1", "fc2", "act2", "fc3")


def mlp(first: int = 8, second: int = 6, activation: str = "Relu") -> onnx.ModelProto:
    weights = random_weights(w=(4, first), k=(first,), v=(first, second), l=(second,), u=(second, 3))
    body = f"a = Gemm(x, w, k) b = {activation}(a) c = Gemm(b, v, l) d = {activation}(c) y = Gemm(d, u)"
    model = graph(body, weights)
    for node, name in zip(model.graph.node, NAMES, strict=True):
        node.name = name
    return model


def residual() -> onnx.ModelProto:
    weights = random_weights(w=(4, 2, 1, 1), v=(6, 4, 1, 1), p=(4, 6, 1, 1), u=(3, 4, 1, 1))
    body = "a = Conv(x, w) b = Conv(a, v) c = Relu(b) d = Conv(c, p) e = Add(a, d) y = Conv(e, u)"
    return graph(body, weights, inputs="float[N, 2, 6, 6] x", outputs="float[N, 3, 6, 6] y")


def run(model: onnx.ModelProto, **options: object) -> tuple[onnx.ModelProto, tuple[Change, ...]]:
    loaded = load(model)
    changes = MergeChannels(**options)(loaded)
    RefreshShapes()(loaded)
    return to_proto(loaded), changes


def sizes(changes: tuple[Change, ...]) -> dict[str, tuple[int, int]]:
    return {c.group: (c.before, c.after) for c in changes if isinstance(c, Merged)}


def reasons(changes: tuple[Change, ...]) -> dict[str, str]:
    return {c.group: c.reason.text for c in changes if isinstance(c, Kept)}


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.3, 0.5, 0.9, 0.99])
def test_k_is_what_the_ratio_says(ratio: float) -> None:
    result, changes = run(mlp(), ratio=ratio)
    expected = {"fc1": (8, max(1, round(8 * (1 - ratio)))), "fc2": (6, max(1, round(6 * (1 - ratio))))}
    assert sizes(changes) == {name: pair for name, pair in expected.items() if pair[0] != pair[1]}
    assert (dims(result)["w"][1], dims(result)["v"][1]) == (expected["fc1"][1], expected["fc2"][1])
    assert_sound(result)


def test_what_is_said_of_a_merge() -> None:
    _, changes = run(mlp(), ratio=0.5)
    first = changes[0]
    assert isinstance(first, Merged)
    assert (first.group, first.producers, first.consumers) == ("fc1", ("fc1",), ("fc2",))
    assert (first.parameters_saved, first.macs_saved) == (4 * (4 + 1 + 6), 4 * (4 + 6))
    assert (first.merge_map.size, len(first.merge_map.labels), first.bound) == (4, 8, None)


def test_what_is_said_of_what_stays() -> None:
    _, changes = run(mlp(), ratio=0.0)
    assert reasons(changes) == {
        "fc1": "nothing to merge at this size",
        "fc2": "nothing to merge at this size",
        "fc3": "y is a model output",
    }
    assert [c.pinned for c in changes if isinstance(c, Kept)] == [False, False, True]


def test_savings_add_up_to_the_models() -> None:
    model = mlp()
    result, changes = run(model, ratio=0.5)
    saved = sum(c.parameters_saved for c in changes if isinstance(c, Merged))
    before, left = (sum(a.size for a in initializers(m).values()) for m in (model, result))
    assert saved == before - left


def test_ratios_for_some_nodes_the_last_pattern_counts() -> None:
    _, changes = run(mlp(), ratio=0.5, ratio_for=(("fc*", 0.25), ("fc2", 0.0)))
    assert sizes(changes) == {"fc1": (8, 6)}


def test_included_and_excluded_nodes() -> None:
    _, changes = run(mlp(), ratio=0.5, group_filter=GroupFilter(include=("*1",)))
    assert sizes(changes) == {"fc1": (8, 4)}
    assert reasons(changes)["fc2"] == "no layer of the group matches --include"
    _, changes = run(mlp(), ratio=0.5, group_filter=GroupFilter(exclude=("fc1", "nothing")))
    assert sizes(changes) == {"fc2": (6, 3)}
    assert reasons(changes)["fc1"] == "a layer of the group matches --exclude"


def test_ties_are_kept_or_merged() -> None:
    _, changes = run(residual(), ratio=0.5)
    assert sizes(changes) == {"Conv_1": (6, 3)}
    assert reasons(changes)["Conv_0"] == "Add_4 combines the channels with those of another activation (--ties keep)"
    result, changes = run(residual(), ratio=0.5, group_filter=GroupFilter(ties="merge"))
    assert sizes(changes) == {"Conv_0": (4, 2), "Conv_1": (6, 3)}
    assert_sound(result)


def test_a_threshold_instead_of_a_ratio() -> None:
    _, nothing = run(mlp(), extent=Threshold(0.0, "raw"))
    assert sizes(nothing) == {}
    _, everything = run(mlp(), extent=Threshold(1e6, "raw"))
    assert sizes(everything) == {"fc1": (8, 1), "fc2": (6, 1)}


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("tropnnc-single", "zonotope")])
def test_every_method_gives_a_sound_model(name: str) -> None:
    result, changes = run(mlp(), ratio=0.5, method=METHODS[name]())
    assert sizes(changes) == {"fc1": (8, 4), "fc2": (6, 3)}
    assert_sound(result)


def test_single_output_networks() -> None:
    weights = random_weights(w=(4, 8), k=(8,), u=(8, 1))
    model = graph("a = Gemm(x, w, k) b = Relu(a) y = Gemm(b, u)", weights, outputs="float[N, 1] y")
    result, changes = run(model, ratio=0.5, method=METHODS["tropnnc-single"]())
    assert sizes(changes) == {"Gemm_0": (8, 4)}
    assert set(np.abs(initializers(result)["u"]).ravel().tolist()) == {1.0}
    for name in ("tropnnc-single", "zonotope"):
        with pytest.raises(OptionError, match="exactly one outgoing weight"):
            run(mlp(), ratio=0.5, method=METHODS[name]())


@pytest.mark.parametrize("sign_fixed", [False, True])
def test_rescaling_is_right_through_homogeneous_activations_only(sign_fixed: bool) -> None:
    """Channels that are positive multiples of each other are one channel for ReLU."""
    found = random_weights(w=(4, 4), u=(8, 3))
    scaled = np.concatenate([found["w"], found["w"] * np.array([0.5, 2, 3, 4], np.float32)], 1)
    model = graph("a = MatMul(x, w) b = Relu(a) y = MatMul(b, u)", {"w": scaled, "u": found["u"]})
    result, _ = run(model, ratio=0.5, method=Iterative(20, sign_fixed))
    assert_sound(result)


# -- exact duplicates


def test_duplicates_go_at_ratio_0() -> None:
    model = inflated(mlp(), "fc1", (1, 2, 1, 3, 1, 1, 1, 1), np.random.default_rng(0))
    result, changes = run(model)
    assert sizes(changes) == {"fc1": (11, 8)}
    assert_same_outputs(mlp(), result)


def test_k_counts_from_the_channels_that_came() -> None:
    """11 channels of which 8 differ: at a ratio of 0.3 eight stay, and nothing else is merged."""
    model = inflated(mlp(), "fc1", (1, 2, 1, 3, 1, 1, 1, 1), np.random.default_rng(0))
    result, changes = run(model, ratio=0.3, group_filter=GroupFilter(include=("fc1",)))
    assert sizes(changes) == {"fc1": (11, 8)}
    assert_same_outputs(mlp(), result)


@pytest.mark.parametrize("order", [("Conv_0", "Conv_1"), ("Conv_1", "Conv_0")])
def test_duplicates_that_show_only_after_others_are_gone(order: tuple[str, str]) -> None:
    """In a residual network each of the two groups reads the other one's copies."""
    model, rng = residual(), np.random.default_rng(0)
    for name in order:
        model = inflated(model, name, (2, 1, 3, 1) if name == "Conv_0" else (1, 2, 1, 1, 2, 1), rng)
    result, changes = run(model, group_filter=GroupFilter(ties="merge"))
    assert sizes(changes) == {"Conv_0": (7, 4), "Conv_1": (8, 6)}
    assert_same_outputs(residual(), result)


def test_a_mean_of_carriers_counts_duplicates_once() -> None:
    """Contracted and merged in one step, as a plan does it, or one after the other: the same PRelu slopes."""
    found = random_weights(w=(4, 3), u=(6, 3), s=(6,))
    weights = {"w": np.concatenate([found["w"], found["w"][:, :1], found["w"][:, 1:] * 1.01], 1), "u": found["u"]}
    slopes = np.array([0.1, 0.2, 0.3, 0.1, 0.25, 0.35], np.float32)
    model = graph("a = MatMul(x, w) b = PRelu(a, s) y = MatMul(b, u)", weights | {"s": slopes})
    result, changes = run(model, ratio=0.5)
    (merged,) = (c for c in changes if isinstance(c, Merged))
    replayed, _ = run(model, plan={"MatMul_0": merged.merge_map})
    for name, array in initializers(result).items():
        np.testing.assert_allclose(array, initializers(replayed)[name], rtol=1e-6)


# -- plans


def test_a_plan_is_replayed() -> None:
    model = mlp()
    result, changes = run(model, ratio=0.5)
    plan = {c.group: c.merge_map for c in changes if isinstance(c, Merged)}
    again, replayed = run(model, plan=plan)
    assert sizes(replayed) == sizes(changes)
    assert_same_outputs(result, again)
    part, rest = run(model, plan={"fc1": plan["fc1"]})
    assert sizes(rest) == {"fc1": (8, 4)}
    assert reasons(rest)["fc2"] == "not in the plan"
    assert dims(part)["v"] == (4, 6)


def test_a_plan_of_another_model_is_refused() -> None:
    with pytest.raises(
        OptionError, match="the plan has 5 channels for fc1, the model 8; it was made for another model"
    ):
        run(mlp(), plan={"fc1": MergeMap.identity(5)})


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_ratios_out_of_range(ratio: float) -> None:
    with pytest.raises(OptionError, match="outside"):
        MergeChannels(ratio=ratio)
    with pytest.raises(OptionError, match="outside"):
        MergeChannels(ratio_for=(("*", ratio),))


def test_unknown_ways_with_ties() -> None:
    with pytest.raises(OptionError, match="ties='cut' is unknown; choose keep or merge"):
        GroupFilter(ties="cut")


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MergeChannels().ratio = 0.5  # type: ignore[misc]


def test_ward_and_kmeans_agree_on_clear_clusters() -> None:
    found = random_weights(w=(4, 4), u=(8, 3))
    near = np.concatenate([found["w"], found["w"] + 1e-3 * random_weights(5, n=(4, 4))["n"]], 1)
    model = graph("a = MatMul(x, w) b = Tanh(a) y = MatMul(b, u)", {"w": near, "u": twice(found["u"][:4])})
    results = [run(model, ratio=0.5, method=METHODS["tropnnc"]())[0]]
    for clustering in ("kmeans", "ward"):
        results.append(
            run(model, ratio=0.5, method=dataclasses.replace(METHODS["tropnnc"](), clustering=clustering))[0]
        )
    for result in results[1:]:
        assert_same_outputs(results[0], result, 1e-6)
    assert_same_outputs(model, results[0], 1e-2)


def test_one_step_after_the_other_on_one_model() -> None:
    result, loaded = after(mlp(), MergeChannels(ratio=0.5), MergeChannels(ratio=0.5), RefreshShapes())
    assert (dims(result)["w"][1], dims(result)["v"][1]) == (2, 2)
    assert loaded.graph.name == "test"
    assert_sound(result)
