"""Whether the first line of a CSV file names its columns."""

from __future__ import annotations

from collections.abc import Sequence

from mtl.checks.columns import LABEL_NAMES, PAIRS
from mtl.data.separated import MOST_VALUES, is_number

USUAL_NAMES = {
    *LABEL_NAMES,
    *(name for pair in PAIRS for name in pair),
    *("text", "sentence", "word", "content", "comment", "review", "tweet", "id", "idx", "index"),
}
"""Names that no row holds by accident in its own place."""

NAMED_BY = 2
"""Words of a name at most, above a column of running text."""


def looks_like_a_row(names: Sequence[str], columns: Sequence[Sequence[str | None]]) -> str | None:
    """Why the first line of a file is a row and no header, or None.

    Some name must stand twice or more among the few values of its own column, or be a number among
    numbers. And no name may be one: a usual name, a word above numbers, or one or two words above
    running text (a column ``spam`` of ``spam`` and ``ham`` beside ``text`` has a header).
    """
    why = None
    for name, cells in zip(names, columns, strict=True):
        present = [cell.strip() for cell in cells if cell and cell.strip()]
        if not present:
            continue
        values = {*present}
        if all(is_number(cell) for cell in values):
            if not is_number(name):
                return None
            why = why or f"{name!r} is a number, as its whole column is"
            continue
        again = present.count(name)
        if name.lower() in USUAL_NAMES and not again:
            return None
        words = sum(len(cell.split()) for cell in present) / len(present)
        if words >= 2 * NAMED_BY and len(name.split()) <= NAMED_BY:
            return None
        if again >= 2 and 2 <= len(values) <= min(MOST_VALUES, len(present) // 2):
            why = f"{name!r} stands {again} times in its own column"
    return why
