"""A fixed sample of the robustness suite; `make robustness` runs all of it."""

import warnings
from collections.abc import Callable, Sequence

import pytest

from tests.robustness import (
    backend_models,
    backend_nodes,
    broken_files,
    data_files,
    escapes,
    interruptions,
    option_values,
    plans,
    random_graphs,
    sample,
    stopped_runs,
    structures,
)
from tests.robustness.outcomes import Outcome


def installed(sample: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the cases of the sample that the installed onnx has: all but one or two that are newer than it."""
    found = sorted(set(sample) & set(names))
    assert len(sample) - len(found) <= 2
    return found


def assert_all_hold(try_one: Callable[..., Outcome], cases: Sequence[object]) -> list[Outcome]:
    """No case has a problem; returns what became of those that could be tried."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about the infinities that some cases are about
        found = [try_one(case) for case in cases]
    assert [(outcome.case, outcome.problem) for outcome in found if outcome.problem] == []
    return [outcome for outcome in found if not outcome.skipped]


def test_tests_of_operators() -> None:
    names = installed(sample.NODE_CASES, backend_nodes.case_names())
    assert len(assert_all_hold(backend_nodes.alone, names)) >= 20
    for axis in (1, -1):
        sandwiches = assert_all_hold(lambda name, axis=axis: backend_nodes.sandwiched(name, axis), names)
        assert any(outcome.merged for outcome in sandwiches)


def test_stored_models() -> None:
    names = installed(sample.STORED_MODELS, backend_models.model_names())
    assert len(assert_all_hold(backend_models.stored_model, names)) >= 20


def test_random_graphs() -> None:
    found = assert_all_hold(random_graphs.outcome, range(12))
    assert sum(outcome.merged for outcome in found) >= 8


def test_broken_files() -> None:
    assert len(assert_all_hold(broken_files.broken_file, range(80))) == 80


@pytest.mark.parametrize("name", escapes.ESCAPES)
def test_escapes(name: str) -> None:
    assert_all_hold(escapes.escape, [name])


def test_a_killed_run() -> None:
    seconds = interruptions.run_seconds()
    assert_all_hold(lambda seed: interruptions.killed(seed, seconds), [0])


def test_a_full_disk() -> None:
    assert_all_hold(interruptions.full_disk, [0])


def test_mutated_structures() -> None:
    found = assert_all_hold(structures.mutated, range(40))
    assert 8 <= sum(outcome.merged for outcome in found) <= 32  # some are sound still, and some are not


# A weight of rank 1 in a fused Attention, and a pair of layers that is none any more once the first has got a bias.
FAILED_ONCE = 154, 348


def test_mutated_operators() -> None:
    found = assert_all_hold(structures.mutated_operators, [*range(34), *FAILED_ONCE])
    assert 8 <= sum(outcome.merged for outcome in found) <= 28


def test_strange_options() -> None:
    assert_all_hold(option_values.strange_options, range(20))


def test_changed_plans() -> None:
    assert_all_hold(plans.changed_plan, range(15))


def test_strange_data() -> None:
    found = assert_all_hold(data_files.strange_data, range(len(data_files.MAKINGS)))
    assert any(outcome.merged for outcome in found)


def test_a_stopped_run_and_a_replaced_result() -> None:
    seconds = interruptions.run_seconds()
    assert_all_hold(lambda seed: stopped_runs.stopped(seed, seconds), [0, 1])
    assert_all_hold(lambda seed: stopped_runs.replaced(seed, seconds), [0])
