"""Write docs/options.md from the options themselves: python docs/write_options.py"""

import re
from pathlib import Path

import click

from onnx_tropnnc.command.cli import command
from onnx_tropnnc.command.declared import GROUPS

__all__ = ["page"]

HEAD = """# Options

This page lists every option of the command, in the groups of `onnx-tropnnc --help`. `compress()` takes the same options
by the same names in snake_case (`--target-macs 0.5` is `target_macs=0.5`); `help(onnx_tropnnc.Options)` explains each
of them. `docs/write_options.py` writes this page from the options in `onnx_tropnnc/command/declared.py`.

The exit code is 0 on success, 1 when the result is further from the original, or slower, than you allowed (nothing is
written unless you add `--keep`), 2 when an option or an input is wrong, and 130 or 143 when the run was interrupted.
One line says what happened and why, and after an interruption whether the output file was written.
"""

TAIL = """## Completion in the shell

Shells complete options, their choices, and names of files after one line in their start file:

```text
bash   eval "$(_ONNX_TROPNNC_COMPLETE=bash_source onnx-tropnnc)"       in ~/.bashrc
zsh    eval "$(_ONNX_TROPNNC_COMPLETE=zsh_source onnx-tropnnc)"        in ~/.zshrc
fish   _ONNX_TROPNNC_COMPLETE=fish_source onnx-tropnnc | source        in ~/.config/fish/completions/onnx-tropnnc.fish
```
"""


def page() -> str:
    """Return the page as Markdown."""
    context = click.Context(command)
    return "\n".join([HEAD, *(_group(title, options, context) for title, options in GROUPS.items()), TAIL])


def _group(title: str, options: tuple[click.Option, ...], context: click.Context) -> str:
    rows = [_row(option, context) for option in options]
    return "\n".join([f"## {title}\n\n| option | default | purpose |\n| --- | --- | --- |", *rows, ""])


def _row(option: click.Option, context: click.Context) -> str:
    """Return the line of one option; its default is the one that `--help` shows at the end of the text."""
    record = option.get_help_record(context)
    assert record is not None
    spelling, text = (part.replace("|", "\\|") for part in record)
    found = re.fullmatch(r"(.*?)\s*\[default: (.*)\]", text, re.S)
    purpose, default = found.groups() if found else (text, "")
    # click adds the range of a number behind its default
    return f"| `{spelling}` | {default.split('; x>')[0]} | {purpose} |"


if __name__ == "__main__":
    Path(__file__).with_name("options.md").write_text(page(), encoding="utf-8")
