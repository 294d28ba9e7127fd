"""Options: what each may hold, what is refused and how it is said, and what options mean together."""

import inspect
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import get_args, get_type_hints

import numpy as np
import pytest

from onnx_tropnnc import compress, sweep
from onnx_tropnnc.analysis.rounding import Rounding
from onnx_tropnnc.choices import MethodName
from onnx_tropnnc.errors import OptionError
from onnx_tropnnc.inputs.readers import Data
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.merging.representatives import METHODS, Method
from onnx_tropnnc.option_rules import AMOUNTS, SELECTING
from onnx_tropnnc.options import Options

NAN, INF = float("nan"), float("inf")


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
    assert Options(**options).group_filter.ties == ties


WRONG: dict[str, Sequence[object]] = {
    "ratio": (-0.1, 1.0, 1.5, NAN, INF, "much", True, 10**400),
    "threshold": (-1.0, NAN, INF, 10**400),
    "target_params": (0.0, 1.1, NAN),
    "target_macs": (-0.5, NAN, INF),
    "target_latency": (0, 2, NAN),
    "max_drop": (-1, 101, NAN),
    "lossless": ("yes", 1),
    "plan": ("plan.json", 3),
    "variant": ("7", 1, 1.0),
    "method": ("magic", ""),
    "clustering": ("dbscan", 2),
    "features": ("pixels",),
    "representative": ("median",),
    "linkage": ("single",),
    "iterations": (-1, 10**9, 3.0, NAN),
    "sign_fixed": (1,),
    "uniform": (1, "yes"),
    "ratio_for": ((("Gemm*", 1.5),), (("Gemm*", NAN),), (("Gemm*",),), "Gemm*", (0.5,)),
    "include": ("Gemm*", (3,)),
    "exclude": ("Gemm*", (None,)),
    "ties": ("cut",),
    "blocks": ("merge", True),
    "streams": ("cut",),
    "queries": ("cut",),
    "factorize": ("yes", 1),
    "heads": ("cut",),
    "round_to": (0, -8, 2**40, "8", "fast", "", None),
    "reconstruct": ("on",),
    "refit": ("no",),
    "effort": ("much", 3),
    "input_shape": ({"x": (0,)}, {"x": (-1, 4)}, {"x": (2**40,)}, {"x": (1.5,)}, {"x": 4}, {3: (1,)}, (1, 3)),
    "input_range": ({"x": (0.0, NAN)}, {"x": (0.0, INF)}, {"x": (2.0, 1.0)}, {"x": (0.0,)}, {"x": 3.0}),
    "min_agreement": (-1, 101, 0.98, 1, NAN),
    "min_cosine": (-0.1, 1.1, NAN),
    "max_latency": (0, -1, NAN, "fast"),
    "verify": (0,),
    "bound_radius": (-1, 1e308, NAN, INF),
    "memory": (0, -1.5, INF, NAN, 1e30),
    "device": ("abacus", 0),
    "seed": (-1, 2**32, 0.5, 10**400),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in WRONG for value in WRONG[name]], ids=str)
def test_each_option_refuses_what_it_cannot_mean_and_is_named(name: str, value: object) -> None:
    with pytest.raises(OptionError) as refused:
        Options(**({} if name in AMOUNTS else {"ratio": 0.3}) | {name: value})
    assert str(refused.value).startswith(f"{name}=")
    assert len(str(refused.value)) < 250
    assert "\n" not in str(refused.value)


def test_every_option_is_tried_with_wrong_values() -> None:
    assert {*WRONG, "data"} == {field.name for field in fields(Options)}  # inputs/user_samples.py judges data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.5}, "ratio=1.5 is outside [0, 1): it is the fraction of channels to remove"),
        ({"ratio": 0.3, "variant": "7"}, "variant='7' is unknown; choose raw, 1 or 2"),
        ({"ratio": 0.3, "exclude": "fc*"}, "exclude='fc*' has the wrong type; it must be tuple[str, ...]"),
        ({"ratio": "a"}, "ratio='a' has the wrong type; it must be a number"),
        ({"ratio": 0.3, "min_agreement": 0.98}, "min_agreement=0.98 is a percentage; did you mean 98?"),
        ({"ratio": 0.3, "ratio_for": (("a*", 2.0),)}, "ratio_for=('a*', 2.0) is outside [0, 1): it is the fraction"),
        ({"max_drop": 1, "verify": False}, "max_drop=1 cannot be judged with verify=False; leave out one of the two"),
        ({"ratio": 0.3, "min_cosine": 0.9, "verify": False}, "min_cosine=0.9 cannot be judged with verify=False"),
        ({"ratio": 0.3, "reconstruct": "data"}, "reconstruct='data' needs samples; give data="),
        ({"ratio": 0.3, "representative": "sum"}, "representative='sum' is a variation of method='tropnnc' only"),
        ({"threshold": 1.0, "method": "select"}, "threshold=1.0 is for methods that cluster, and method='select'"),
        ({"ratio": 0.3, "method": "l1", "features": "cup"}, "features='cup' has no effect on method='l1'"),
        (
            {},
            "exactly one of ratio=, threshold=, target_params=, target_macs=, target_latency=, max_drop=, lossless=, ",
        ),
        ({"ratio": 0.3, "lossless": True}, "2 are given"),
    ],
    ids=str,
)
def test_refusals_say_what_why_and_what_to_do(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        Options(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": np.float32(0.5), "seed": np.int64(3)},
        {"ratio": 0, "memory": 2, "min_agreement": 98},
        {"threshold": 0.5, "ratio_for": [["fc*", 0.2]], "include": ["fc*"], "exclude": []},
        {"lossless": True, "input_shape": {"x": [1, 3]}, "input_range": {"x": (0, 1)}, "round_to": Rounding.to(8)},
        {"ratio": 0.3, "round_to": "onnxruntime-cpu-avx2", "bound_radius": 0, "min_agreement": 0},
    ],
    ids=str,
)
def test_numbers_of_numpy_whole_numbers_and_lists_are_taken_too(options: dict[str, object]) -> None:
    assert Options(**options)


def test_method_names_are_those_of_the_methods_there_are() -> None:
    assert get_args(MethodName) == ("auto", *SELECTING, *METHODS)


def test_options_are_imported_without_numpy_or_onnx() -> None:
    program = (
        "import sys, onnx_tropnnc.command.cli; print(sorted({'numpy', 'onnx', 'scipy', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_the_keywords_of_compress_are_the_options() -> None:
    parameters = list(inspect.signature(compress).parameters.values())[1:]
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters)
    defaults = {field.name: {} if field.default_factory is dict else field.default for field in fields(Options)}
    assert {parameter.name: parameter.default for parameter in parameters} == defaults
    assert [parameter.name for parameter in parameters] == list(defaults)
    types = {name: kind for name, kind in get_type_hints(compress).items() if name in defaults}
    assert types == get_type_hints(
        Options, localns={"MergeMap": MergeMap, "Method": Method, "Data": Data, "Rounding": Rounding}
    )
    for name in defaults:
        assert re.search(f"^        {name}: ", compress.__doc__, re.M), name
        assert re.search(f"^        {name}: ", Options.__doc__, re.M), name


def test_the_keywords_of_sweep_are_the_options_of_every_point() -> None:
    there = inspect.signature(sweep).parameters
    wanted = inspect.signature(compress).parameters
    left_out = {"model", *AMOUNTS, "method", "min_agreement", "min_cosine", "max_latency"}
    names = [name for name in wanted if name not in left_out]
    assert list(there) == ["model", "amount", "values", "methods", "progress", *names]
    assert [there[name] for name in names] == [wanted[name] for name in names]
