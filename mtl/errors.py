"""Errors that users read.

Every error says what was being done, with which values, and what to do next. The command lines
turn an :class:`MtlError` into one message on standard error and the exit code of its class; any
other exception is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MtlError(Exception):
    """Base of all user-facing errors. ``exit_code`` is what a command line returns for it."""

    exit_code = 1


class RequestError(MtlError):
    """The request was wrong: an unknown name, an impossible combination, unusable input."""

    exit_code = 2


class RunError(MtlError):
    """A run could not be finished: a NaN loss, a full disk, another process holding the run."""

    exit_code = 1


class HeldError(RunError):
    """Another living process is at it. ``who`` says which one, as messages call it."""

    def __init__(self, message: str, who: str = "another process") -> None:
        super().__init__(message)
        self.who = who


class ZooError(MtlError):
    """An entry of the zoo is damaged, missing, or in the way."""

    exit_code = 1


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ```" Did you mean 'x'?"`` for the closest of ``known``, or an empty string.

    Names with parts (``glue/rte``) are also compared by their last part.
    """
    options: dict[str, str] = {}
    for option in known:
        options.setdefault(option.lower(), option)
        options.setdefault(option.lower().rpartition("/")[2], option)
    close = get_close_matches(name.lower(), options, n=1, cutoff=0.55)
    return f" Did you mean {options[close[0]]!r}?" if close else ""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> RequestError:
    """Build the error for an unknown ``name`` of a ``kind``: a guess, the known names, a hint.

    Example::

        raise unknown("method", "pfeifer", ["average", "pfeiffer"])
    """
    names = sorted(known)
    listed = ", ".join(names[:40]) + (", …" if len(names) > 40 else "")
    text = f"Unknown {kind} {name!r}.{did_you_mean(name, names)} Known: {listed or 'none'}."
    return RequestError(f"{text} {hint}".rstrip())
