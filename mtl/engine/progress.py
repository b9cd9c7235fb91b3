"""What a person sees while a run goes: a bar on a terminal; elsewhere nothing, unless asked for.

Without a terminal a command says one line per finished run (``mtl/runs/running.py``), and with
``--verbose`` (``MTL_VERBOSE=1``) one per evaluation, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_SILENT: ContextVar[bool | None] = ContextVar("silent", default=None)


def quiet() -> bool:
    """Whether nothing is shown: as :func:`progress` says, else ``MTL_QUIET=1`` (``--json``)."""
    silent = _SILENT.get()
    return os.environ.get("MTL_QUIET") == "1" if silent is None else silent


@contextmanager
def progress(shown: bool | None) -> Iterator[None]:
    """Inside, progress is shown or not; None: where a terminal watches, unless ``MTL_QUIET=1``."""
    token = _SILENT.set(not shown if shown is not None else not sys.stderr.isatty() or quiet())
    try:
        yield
    finally:
        _SILENT.reset(token)


_LISTENER: ContextVar[Callable[[int, int], object] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[int, int], object]) -> Iterator[None]:
    """Inside, ``listener`` is told of every step of training: steps done, and planned."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def listener() -> Callable[[int, int], object]:
    """Who is told of steps here; nobody, where nobody listens."""
    return _LISTENER.get() or (lambda done, total: None)


def verbose() -> bool:
    """Whether every evaluation is a line where there is no terminal for a bar."""
    return os.environ.get("MTL_VERBOSE") == "1"


class Progress:
    """Progress of one run; writes to standard error only."""

    def __init__(self, label: str, total: int, done: int, *, shown: bool) -> None:
        self._label = label
        self._done, self._total, self._listener = done, total, _LISTENER.get()
        self._shown = shown and not quiet()
        self._bar = None
        if self._shown and sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=done, desc=label, unit="step", leave=False, file=sys.stderr
            )

    def step(self) -> None:
        self._done += 1
        if self._listener is not None:
            self._listener(self._done, self._total)
        if self._bar is not None:
            self._bar.update(1)

    def evaluation(self, event: dict[str, Any]) -> None:
        """Show an evaluation: in the bar's tail, or as a line if every one is wanted."""
        metrics = " ".join(f"{name} {value:.4f}" for name, value in event["metrics"].items())
        if self._bar is not None:
            self._bar.set_postfix_str(f"dev loss {event['dev_loss']:.4f} {metrics}")
        elif self._shown and verbose():
            print(
                f"{self._label}: epoch {event['epoch']} step {event['step']} train loss "
                f"{event['train_loss']:.4f} dev loss {event['dev_loss']:.4f} {metrics}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
