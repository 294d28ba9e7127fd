"""Declare options of the command line from the fields of `Options`: type, choices and default are written there alone.

option("--ratio", help="Fraction of channels to remove.")     the click.Option of the field `ratio`

spelled(command, Setting("ratio", 1.5))                       --ratio 1.5

A message names options by the fields of `Options`; `spelled` finds the option that was declared from the field.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from onnx_tropnnc.command.parsing import parse_input_range, parse_input_shape, parse_ratio_for
from onnx_tropnnc.errors import OptionError, Setting, shortened
from onnx_tropnnc.options import Options

__all__ = ["option", "options_of", "spelled"]

Completes = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

_FIELDS = {field.name: field for field in dataclasses.fields(Options)}


def option(*names: str, help: str, metavar: str | None = None, completes: Completes | None = None) -> click.Option:
    """Return the option of a field of `Options`.

    Args:
        *names: as `click.Option` takes them; the last one names the field, as in `--target-params`, or
            `--refit/--no-refit`, or `--apply-plan` and `plan`.
        help: what the option does, in one sentence.
        metavar: what stands for the value in the help.
        completes: how a shell completes the value; None: click's way.
    """
    *_, last = names
    name = last.split("/")[0].removeprefix("--").replace("-", "_")
    field = _FIELDS[name]
    # A field of several values has an empty default, which the help need not show.
    default = field.default if field.default_factory is dataclasses.MISSING else ()
    shown = default is not None and default != () and not isinstance(default, bool)
    more: dict[str, Any] = {"is_flag": True} if field.type is bool else {"type": _kind(field.type), "metavar": metavar}
    return click.Option(
        names,
        default=default,
        show_default=shown,
        multiple=default == (),
        help=help,
        shell_complete=completes,
        **more,
    )


def spelled(command: click.Command, setting: Setting) -> str:
    """Return an option as it is written at the command line: `--ratio 1.5`, `--no-verify`, `--ratio-for 'fc*=0.5'`."""
    parameters = {parameter.name: parameter for parameter in command.params}
    parameter = parameters.get(setting.name)
    if parameter is None:
        return str(setting)
    if setting.value is False and parameter.secondary_opts:
        return parameter.secondary_opts[0]
    name = parameter.opts[0]
    return name if setting.value is None or isinstance(setting.value, bool) else f"{name} {_text(setting.value)}"


def options_of(arguments: Mapping[str, Any]) -> Options:
    """Return the options of parsed arguments; what click leaves as text, such as NAME:1,3,224,224, is read here.

    Raises:
        OptionError: a text is not as it must be, or `Options` refuses a value.
    """
    from onnx_tropnnc.deciding.plans import load_plan

    rounding, methods = arguments["round_to"], arguments["method"] or ("auto",)
    if len(methods) > 1:
        raise OptionError("{} is given more than once; that is for {}", Setting("method"), Setting("sweep"))
    # Longer numbers are refused as they stand: Python makes no number of more than 4,300 digits.
    whole = rounding.isdecimal() and len(rounding) < 20
    understood = {
        "round_to": int(rounding) if whole else rounding,
        "method": methods[0],
        "ratio_for": tuple(map(parse_ratio_for, arguments["ratio_for"])),
        "plan": None if arguments["plan"] is None else load_plan(arguments["plan"]),
        "input_shape": dict(map(parse_input_shape, arguments["input_shape"])),
        "input_range": dict(map(parse_input_range, arguments["input_range"])),
    }
    return Options(**({name: arguments[name] for name in _FIELDS} | understood))


def _kind(annotation: Any) -> Any:
    """Return click's type for a field's; a type that is open or has several parts is read from a string later on."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not type(None)]
    for kind in (annotation, *kinds):
        if get_origin(kind) is Literal:
            return click.Choice(get_args(kind))
    return kinds[0] if kinds in ([float], [int]) else str


def _text(value: object) -> str:
    match value:
        case float():
            return f"{value:.10g}"
        case None:  # a dimension that is left open
            return "?"
        case (str() as pattern, int() | float() as number):
            return f"{pattern}={number:.10g}"
        case Mapping():
            return " ".join(f"{name}:{','.join(map(_text, numbers))}" for name, numbers in value.items())
        case _:
            return shortened(str(value))
