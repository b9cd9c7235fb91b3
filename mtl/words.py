"""Numbers with their nouns, for sentences that people read."""

from __future__ import annotations


def counted(number: int, one: str, several: str | None = None) -> str:
    """``1 entry``, ``2 entries``, ``10,000 runs``.

    Args:
        several: the plural; None for ``one`` with an s.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
