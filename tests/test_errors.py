"""Errors name options as their caller spells them, and travel between processes."""

import ast
import inspect
import pickle
import re
from pathlib import Path

from onnx_tropnnc import errors
from onnx_tropnnc.errors import NotRunnable, OptionError, Setting, TropnncError


def test_options_are_spelled_for_python_callers_unless_asked_otherwise() -> None:
    error = OptionError("{} is outside [0, 1); give {}", Setting("ratio", 1.5), Setting("data"))
    assert str(error) == "ratio=1.5 is outside [0, 1); give data="
    assert error.spelled(lambda setting: f"--{setting.name}") == "--ratio is outside [0, 1); give --data"


def test_braces_of_the_caller_stay_as_they_are() -> None:
    assert str(OptionError("{x}: no such file")) == "{x}: no such file"
    assert str(OptionError("{} is not {}", Setting("method", "{}"), "{0}")) == "method='{}' is not {0}"


def test_values_too_long_for_a_line_are_shortened() -> None:
    assert len(str(Setting("data", "x" * 5000))) < 100


def test_errors_travel_between_processes() -> None:
    error = OptionError("{} is outside [0, 1)", Setting("ratio", 1.5))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(pickle.loads(pickle.dumps(NotRunnable("no {kernel}")))) == "no {kernel}"


def test_the_module_lists_and_draws_every_error() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, TropnncError)]
    assert len(kinds) >= 7
    assert all(kind.__name__ in errors.__all__ and kind.__name__ in errors.__doc__ for kind in kinds)


def test_no_error_spells_an_option_as_only_the_command_line_does() -> None:
    """What only the command line calls may: it reads text that was written there."""
    root, found = Path(errors.__file__).parent, []
    for path in (*root.rglob("*.py"), *(root / "passes").glob("*.py")):
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        for function in functions:
            if path.parent.name == "command" or function.name.startswith("parse_"):
                continue
            raised = (node for node in ast.walk(function) if isinstance(node, ast.Raise) and node.exc is not None)
            texts = (node.value for error in raised for node in ast.walk(error) if isinstance(node, ast.Constant))
            found += [(path.name, text) for text in texts if isinstance(text, str) and re.search("--[a-z]", text)]
    assert found == []
