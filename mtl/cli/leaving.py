"""SIGTERM and SIGHUP leave as Ctrl-C does: a message, temporaries gone, the resume point kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_SIGNALS = {"SIGTERM": "terminated", "SIGHUP": "the terminal was closed"}


class Told(BaseException):
    """The system told us to leave. No ``Exception``, so nobody who mends errors catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(_SIGNALS[signal.Signals(number).name])
        self.exit_code = 128 + number
        """As a shell names a process that died of the signal."""


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """In the block these signals raise :class:`Told`, so that every ``finally`` is done.

    A signal that somebody handles or ignores (``nohup``) stays theirs. A second one does not
    disturb the clearing up of the first; SIGINT and SIGKILL do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: Any) -> None:
        for known in ours:
            signal.signal(known, signal.SIG_IGN)
        raise Told(number)

    named = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    ours = [number for number in named if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
