"""A sample of `python -m tests.robustness`, which runs all of it."""

import random
import warnings

from hypothesis import given, settings
from hypothesis import strategies as st
from robustness.backend_nodes import all_outcomes, case_names
from robustness.random_graphs import outcome


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_random_graphs(seed: int) -> None:
    found = outcome(seed)
    assert (found.skipped, found.problem) == (None, None)


def test_onnx_own_node_tests() -> None:
    names = random.Random(0).sample(case_names(), 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, about the infinities that some tests are about
        found = list(all_outcomes(names))
    assert [f"{o.case}: {o.problem}" for o in found if o.problem] == []
    assert sum(o.skipped is None for o in found) > 40
    assert any(o.merged for o in found)
