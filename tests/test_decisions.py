"""Decisions on whole models: ratios, budgets for every kind of method, what cannot be reached."""

from itertools import pairwise
from pathlib import Path

import pytest

from onnx_tropnnc.changes import Kept, Merged
from onnx_tropnnc.deciding.decisions import Decider
from onnx_tropnnc.engine import Compression
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.graph.model_io import load
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.graph.sizes import size_of
from onnx_tropnnc.inputs.samples import samples_for
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.options import Options
from onnx_tropnnc.report import Report


def compressed(path: Path, **options: object) -> Report:
    return Compression(load(path), Options(verify=False, **options)).run()  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["auto", "tropnnc", "cup", "l1", "random", "select", "thinet"])
@pytest.mark.parametrize("target", ["target_params", "target_macs"])
def test_a_budget_is_met_by_every_method(method: str, target: str, models_folder: Path) -> None:
    options = {target: 0.6, "method": method, "round_to": 1, "reconstruct": "auto" if method == "select" else "off"}
    report = compressed(models_folder / "digits_resnet_bn.onnx", **options)
    assert report.after.macs is not None
    assert report.before.macs is not None
    parameters = report.after.parameters / report.before.parameters
    macs = report.after.macs / report.before.macs
    share = parameters if target == "target_params" else macs
    assert 0.55 < share <= 0.6


def test_the_variations_of_algorithm_2_are_options(models_folder: Path) -> None:
    """The sum doubles the incoming weights of every cluster of two, cosine and shifted choose other clusters."""
    path = models_folder / "mnist_deepnn.onnx"

    def maps(**options: object) -> list[MergeMap]:
        found = compressed(path, ratio=0.2, method="tropnnc", reconstruct="off", **options).of(Merged)
        return [change.merge_map for change in found]

    plain, summed = maps(), maps(representative="sum")
    for mean, total in zip(plain, summed, strict=True):
        assert mean.labels.tolist() == total.labels.tolist()
        assert set(total.alpha) == {1.0}
        assert max(mean.alpha) == 1.0 > min(mean.alpha)
    for features in ("cosine", "shifted"):
        assert [m.labels.tolist() for m in maps(features=features)] != [m.labels.tolist() for m in plain]


def test_clustering_on_fused_kernels_is_an_option(models_folder: Path) -> None:
    path = models_folder / "digits_resnet_bn.onnx"
    options = {"threshold": 1.2, "variant": "2", "method": "tropnnc", "reconstruct": "off"}
    before, after = (compressed(path, **options, features=name).of(Merged) for name in ("weights", "fused"))
    assert [c.merge_map.labels.tolist() for c in before] != [c.merge_map.labels.tolist() for c in after]


def test_a_budget_out_of_reach_says_what_can_be_reached(models_folder: Path) -> None:
    with pytest.raises(OptionError, match=r"cannot be reached: at least [\d,]+ are left"):
        compressed(models_folder / "digits_resnet_bn.onnx", target_params=0.01, reconstruct="off")


@pytest.fixture(scope="module")
def decider(models_folder: Path) -> Decider:
    """Return what decides for an MLP with 512, 256 and 128 channels; it is asked by several tests, and ranks once."""
    model = load(models_folder / "mnist_deepnn.onnx")
    return Decider(model, samples_for(model, count=512), size_of(model, shapes_of(model)))


def counts(decider: Decider, **options: object) -> list[int]:
    """Return how many channels each group keeps."""
    maps = decider.decide(Options(round_to=1, **options)).maps  # type: ignore[arg-type]
    assert maps is not None
    return [maps[group.name].size for group in decider.groups if group.pinned is None]


def macs(widths: list[int]) -> int:
    """Return the multiply-accumulates of the MLP with these widths."""
    return sum(before * after for before, after in pairwise([784, *widths, 10]))


def test_a_ratio_counts_for_every_group_but_those_with_their_own(decider: Decider) -> None:
    assert counts(decider, ratio=0.5, uniform=True) == [256, 128, 64]
    own = ((decider.groups[1].name, 0.25),)
    assert counts(decider, ratio=0.5, ratio_for=own, uniform=True) == [256, 192, 64]


def test_a_ratio_leaves_as_many_multiply_accumulates_as_equal_shares(decider: Decider) -> None:
    """Fewer only by what the last step saves; a group with a ratio of its own keeps its count."""
    for own in ((), ((decider.groups[1].name, 0.25),)):
        shared, spread = (counts(decider, ratio=0.5, ratio_for=own, uniform=way) for way in (True, False))
        assert 0.98 * macs(shared) < macs(spread) <= macs(shared)
        assert shared != spread
        assert not own or shared[1] == spread[1] == 192


def test_selection_is_the_same_for_the_same_seed(models_folder: Path) -> None:
    first, second = (compressed(models_folder / "digits_depthwise.onnx", ratio=0.5).of(Merged) for _ in range(2))
    assert [c.merge_map.labels.tolist() for c in first] == [c.merge_map.labels.tolist() for c in second]


@pytest.mark.parametrize("options", [{"threshold": 1.0}, {"ratio": 0.3, "features": "cosine"}])
def test_thinet_takes_no_options_of_clustering(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="method='thinet'"):
        Options(method="thinet", **options)  # type: ignore[arg-type]


def test_groups_that_a_budget_leaves_alone_say_so(models_folder: Path) -> None:
    report = compressed(models_folder / "digits_resnet_bn.onnx", target_params=0.97)
    reasons = {change.reason.text for change in report.of(Kept) if not change.pinned}
    assert reasons == {"the requested size is reached without merging this group"}
