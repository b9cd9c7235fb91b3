"""Words for people: numbers with their nouns, and strangers' strings made safe to show."""

from __future__ import annotations

import shlex


def counted(number: int, one: str, several: str | None = None) -> str:
    """``1 entry``, ``2 entries``, ``10,000 runs``.

    Args:
        several: the plural; None for ``one`` with an s.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def printable(text: object) -> str:
    """``text`` on one line without control characters: a stranger's string on a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def printable_lines(text: object) -> str:
    """``text`` without control characters but its line breaks: a table with a stranger's words."""
    return "\n".join(map(printable, str(text).expandtabs().split("\n")))


def shown_command(command: str) -> str | None:
    """``command`` if a message may offer it for typing: one of ours, and nothing for a shell in it.

    A manifest's command is a stranger's text. It is offered only where quoting its words again
    gives the same line, so that no ``;``, ``$(…)`` or newline of it would do anything.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    ours = words[:2] == ["python", "-m"] and len(words) > 2 and words[2].startswith("mtl.")
    plain = shlex.join(words) == command and printable(command) == command
    return command if ours and plain and len(command) < 4000 else None
