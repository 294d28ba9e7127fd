"""Files that are cut off, or in which bytes, bits and runs were changed.

Whatever comes in, the command ends: with 0 and a result that onnx can read, with 1 and none, or with 2, one line, no
traceback and no file.
"""

import contextlib
import io
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx

from onnx_tropnnc.command import cli

from .outcomes import Outcome
from .random_graphs import branching

__all__ = ["broken_file", "command"]

SECONDS = 60
Damage = Callable[[bytes, np.random.Generator], bytes]


class Hanging(BaseException):
    """The command took longer than SECONDS; no handler for errors may swallow it."""


def broken_file(seed: int) -> Outcome:
    """Damage a random graph in one of five ways, run the command on it, and return what came of it."""
    rng = np.random.default_rng(seed)
    content = branching(seed).SerializeToString()
    damage = DAMAGES[int(rng.integers(len(DAMAGES)))]
    name = f"{damage.__name__} {seed}"
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
        source.write_bytes(damage(content, rng))
        arguments = [str(source), str(target), "--ratio", "0.5", "--ties", "merge", "--no-verify", "--quiet"]
        return Outcome(name, _problem(command([*arguments, "--method", "tropnnc", "--reconstruct", "off"]), target))


def command(arguments: list[str]) -> tuple[int | str, str]:
    """Return the command's exit code and what it said on standard error; text instead of a code where it broke down."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), _limit():
        try:
            code = cli.command.main(arguments, standalone_mode=False)
        except cli.click.ClickException as error:
            return 2, f"onnx-tropnnc: {' '.join(error.format_message().split())}"
        except (Exception, Hanging) as error:
            return f"{type(error).__name__}: {error}"[:200], said.getvalue()
    return int(code), said.getvalue()


@contextlib.contextmanager
def _limit() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hanging(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _problem(found: tuple[int | str, str], target: Path) -> str | None:
    code, said = found
    left = sorted(path.name for path in target.parent.iterdir())
    if code == 0:
        onnx.load(target)
        return None if left == ["in.onnx", "out.onnx"] else f"left {left}"
    if code not in (1, 2):
        return f"broke down: {code}"
    if left != ["in.onnx"]:
        return f"exit {code}, but left {left}"
    return None if code == 1 or len(said.strip().splitlines()) == 1 else f"exit 2 with {said!r}"


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, len(content), int(rng.integers(1, 9))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 64))
    noise = rng.integers(0, 256, length, np.uint8).tobytes()
    return content[:start] + noise + content[start + length :]


def shortened(content: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(content)))
    return content[:start] + content[start + int(rng.integers(1, 64)) :]


def renamed(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the file with a name, a number or a field of the graph's structure changed."""
    model = onnx.ModelProto.FromString(content)
    node = model.graph.node[int(rng.integers(len(model.graph.node)))]
    changes: list[Callable[[], object]] = [
        lambda: node.input.append("nobody makes this"),
        lambda: node.output.append(model.graph.node[0].output[0]),
        lambda: setattr(node, "op_type", str(rng.choice(["Conv", "MatMul", "Concat", "Nothing", "Reshape", "If"]))),
        lambda: setattr(node, "domain", "somewhere.else"),
        lambda: node.ClearField("attribute"),
        lambda: node.ClearField("input"),
        lambda: model.graph.initializer[0].dims.append(int(rng.integers(-2, 5))),
        lambda: model.graph.initializer[0].ClearField("raw_data"),
        lambda: setattr(model.graph.initializer[0], "data_type", int(rng.integers(0, 30))),
        lambda: setattr(model.opset_import[0], "version", int(rng.integers(0, 40))),
        lambda: model.graph.node.extend([node]),
        lambda: model.graph.ClearField("output"),
    ]
    changes[int(rng.integers(len(changes)))]()
    return model.SerializeToString()


DAMAGES: tuple[Damage, ...] = (truncated, flipped, overwritten, shortened, renamed)
