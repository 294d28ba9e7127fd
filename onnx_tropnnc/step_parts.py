"""Tell whoever shows progress how far a long step has come: which of its parts is worked on, and how many there are.

    with told_to(lambda text, done, total: print(f"{done} of {total}: {text}")):
        for layer in counted(layers, lambda layer: f"solve {layer.name}"):
            ...                                           # 0 of 2: solve conv_1    1 of 2: solve conv_2

Steps are told by name through `Progress` (pass_manager.py). Their parts lie too deep for a callback to be handed down:
a context variable holds the listener, and without one nothing is told.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

__all__ = ["Listener", "counted", "told_to"]

T = TypeVar("T")

Listener = Callable[[str, int, int], None]
"""Called with what is worked on, how many parts of the step are done, and how many there are."""

_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Call the listener at every part of a step inside the block."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def counted(parts: Sequence[T], text: Callable[[T], str]) -> Iterator[T]:
    """Yield the parts of a step in order, after telling the listener which one comes next."""
    listener = _LISTENER.get()
    for number, part in enumerate(parts):
        if listener is not None:
            listener(text(part), number, len(parts))
        yield part
