"""What is printed never fails for the encoding of the terminal, pipe or file that takes it."""

from __future__ import annotations

import codecs
import io
import sys

PLAIN = {
    "±": "+/-",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "→": "->",
    "←": "<-",
    "↔": "<->",
    "×": "x",
    "·": "*",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "≈": "~",
    "Δ": "delta",
    "Σ": "sum",
    "∅": "none",
    "∞": "inf",
    "²": "^2",
    "⁻": "^-",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
}
"""Characters of our own tables and sentences in ASCII; of everything else the code is shown."""


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    # One character at a time: the next ones may be of the encoding.
    character = error.object[error.start]
    if character in PLAIN:
        return PLAIN[character], error.start + 1
    shown = character.encode("ascii", "backslashreplace").decode("ascii")
    return shown, error.start + 1


codecs.register_error("mtl-plain", _plainly)


def speak_anywhere() -> None:
    """Let standard output and error write what their encoding lacks in plain characters.

    Files are written as UTF-8 whatever the terminal has; JSON on standard output is ASCII.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="mtl-plain")
