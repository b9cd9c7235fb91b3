"""One look at the task files for a whole request, however many tasks it asks for.

A lookup sees the files as they are now, and for that looks at all of them. A request that asks for
hundreds of tasks would look hundreds of times at what stood there when it began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
_SEEN: ContextVar[list[object] | None] = ContextVar("task files", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """In the block, task files are what they were when the first of them was asked for.

    Of two such blocks, one inside the other, the outer one holds.
    """
    if _SEEN.get() is not None:
        yield
        return
    token = _SEEN.set([])
    try:
        yield
    finally:
        _SEEN.reset(token)


def seen(look: Callable[[], T]) -> T:
    """What ``look`` gives; in a block of :func:`one_look` what it gave the first time."""
    held = _SEEN.get()
    if held is None:
        return look()
    if not held:
        held.append(look())
    found: T = held[0]  # type: ignore[assignment]
    return found
