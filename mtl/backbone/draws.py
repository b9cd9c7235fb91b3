"""Random draws that belong to an optimiser step, not to a forward pass.

A step may take several forward passes (:func:`mtl.data.cut`). What is drawn per row, such as
dropout on hidden states, is drawn in each of them. What one batch has in common, such as the
mask on omega or the expert that a batch takes, is drawn once per step, so that cutting a batch
changes nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

T = TypeVar("T")

_step: ContextVar[object | None] = ContextVar("step", default=None)


@contextmanager
def one_step() -> Iterator[None]:
    """Everything inside is one optimiser step: its :class:`PerStep` draws are made once."""
    token = _step.set(object())
    try:
        yield
    finally:
        _step.reset(token)


class PerStep(Generic[T]):
    """One draw per optimiser step; outside of :func:`one_step` one per call."""

    def __init__(self) -> None:
        self._of: object | None = None
        self._drawn: T | None = None

    def __call__(self, draw: Callable[[], T]) -> T:
        """What this step drew, by ``draw`` if it is the first to ask."""
        step = _step.get()
        if step is None:
            return draw()
        if self._of is not step:
            self._drawn, self._of = draw(), step
        return self._drawn  # type: ignore[return-value]
