"""Looking at a model while it trains, from outside the stage that trains it.

A search stops a hopeless training early by what it sees.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Look = Callable[[int, int, Any], None]
"""`look(done, steps, model)`: so many of the steps are done. What it raises ends the training; it
may read the model, not change it."""

_look: ContextVar[Look | None] = ContextVar("look", default=None)


@contextmanager
def watching(look: Look) -> Iterator[None]:
    """Call `look` after every step of whatever trains in here."""
    token = _look.set(look)
    try:
        yield
    finally:
        _look.reset(token)


def show_step(done: int, *, steps: int, model: Any) -> None:
    """Show a model to whoever watches; nothing where nobody does."""
    look = _look.get()
    if look is not None:
        look(done, steps, model)
