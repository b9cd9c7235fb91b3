"""Where a command line says that things are, so that the commands its messages recommend say it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import zip_longest

_words: ContextVar[tuple[str, ...]] = ContextVar("words", default=())


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """In the block, ``words`` are what was typed behind a command's name."""
    token = _words.set(tuple(words))
    try:
        yield
    finally:
        _words.reset(token)


def given(*options: str) -> str:
    """`` --zoo DIR``: those of ``options`` that were typed, quoted for a shell; "" for none."""
    words, found = _words.get(), {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if name in options:
            found[name] = value if equals else following
    return "".join(f" {name} {shlex.quote(found[name])}" for name in options if name in found)


def graph_places() -> str:
    """What a command of ``mtl.graph`` needs to find the same zoo and graph."""
    return given("--zoo", "--graph")
