"""What a person sees while a run goes: a bar on a terminal; elsewhere nothing, unless asked for.

Runs side by side have one bar.

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


def write_line(text: str) -> None:
    """A line on standard error, above the bars that are shown there."""
    tqdm.write(text, file=sys.stderr)
    sys.stderr.flush()


def _bar_of(label: str, total: int, done: int) -> Any:
    return tqdm(total=total, initial=done, desc=label, unit="step", leave=False, file=sys.stderr)


class _OneBar:
    """A bar over the steps of several runs, from the first of them on."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._begun = self._left = 0

    def begin(self, label: str, total: int, done: int) -> _Share:
        """A run begins: what it shows goes into the bar."""
        self._begun, self._left = self._begun + 1, self._left + 1
        if self._bar is None:
            self._bar = _bar_of(label, total, done)
        else:
            self._grow(total, done)
        return _Share(self, label, total, done)

    def add(self, steps: int) -> None:
        self._bar.update(steps)

    def say(self, text: str) -> None:
        self._bar.set_postfix_str(text)

    def end(self, undone: int) -> None:
        """A run is over; steps that it did not need are no longer counted."""
        if self._bar is not None:
            self._left -= 1
            if self._left:
                self._grow(-undone, 0)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _grow(self, total: int, done: int) -> None:
        of = "" if self._left == self._begun else f" of {self._begun}"
        self._bar.set_description_str(f"{self._left}{of} runs side by side", refresh=False)
        self._bar.total += total
        self._bar.n += done
        self._bar.refresh()


class _Share:
    """What is a run's own of a bar for several, in the form of a bar."""

    def __init__(self, bar: _OneBar, label: str, total: int, done: int) -> None:
        self._bar, self._label, self._total, self._done = bar, label, total, done

    def update(self, steps: int) -> None:
        self._done += steps
        self._bar.add(steps)

    def set_postfix_str(self, text: str) -> None:
        self._bar.say(f"{self._label}: {text}")

    def close(self) -> None:
        self._bar.end(self._total - self._done)


_TOGETHER: ContextVar[_OneBar | None] = ContextVar("together", default=None)


@contextmanager
def one_bar() -> Iterator[None]:
    """Inside, runs that begin share one bar."""
    bar = _OneBar()
    token = _TOGETHER.set(bar)
    try:
        yield
    finally:
        _TOGETHER.reset(token)
        bar.close()


class Progress:
    """Progress of one run; writes to standard error only."""

    def __init__(self, label: str, total: int, done: int, *, shown: bool) -> None:
        self._label = label
        self._done, self._total, self._listener = done, total, _LISTENER.get()
        self._shown = shown and not quiet()
        self._bar: Any = None
        if self._shown and sys.stderr.isatty():
            together = _TOGETHER.get()
            if together is not None:
                self._bar = together.begin(label, total, done)
            else:
                self._bar = _bar_of(label, total, done)

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
