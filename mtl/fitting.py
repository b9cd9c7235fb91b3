"""Tables of text that fit the terminal: what does not stand beside, stands below.

A line that a terminal breaks can be read by nobody. So where a table is wider than the terminal,
its columns are divided into blocks, one below the other, each with what says which row is which; no
column is left out, no cell is cut. Into a file or a pipe every table goes in one piece.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

GAP = 2
"""Spaces between columns, and what ``tabulate`` adds to a name at least."""
ALIGNED = 500
"""Longer tables are aligned by ourselves: ``tabulate`` takes a second for 10,000 rows."""


def terminal_width() -> int | None:
    """Characters of a line: ``COLUMNS`` where it is set, else the terminal's; None for no limit."""
    if not os.environ.get("COLUMNS", "").isdigit() and not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def fitted(
    rows: Sequence[Sequence[Any]],
    headers: Sequence[str],
    *,
    keys: int = 1,
    width: int | None = None,
) -> str:
    """A table of ``rows`` as plain text, in blocks of columns where it is wider than the terminal.

    Args:
        keys: so many columns at first say which row is which, and stand in every block; where they
            take more than half of a line, numbers of the rows do it.
        width: characters of a line; None: :func:`terminal_width`.
    """
    limit = terminal_width() if width is None else width
    columns = list(zip(*([str(cell) for cell in row] for row in rows), strict=True))
    sizes = [
        max(len(name) + GAP, *(len(line) for cell in column for line in cell.split("\n")))
        for name, column in zip(headers, columns, strict=False)
    ]
    if limit is None or not rows or _length(sizes) <= limit:
        return _text(rows, headers)
    lead = list(range(keys))
    names, cells = list(headers), [list(row) for row in rows]
    if _length(sizes[:keys]) > limit // 2:
        lead, names, sizes = [0], ["#", *names], [max(len(str(len(rows))), 1 + GAP), *sizes]
        cells = [[number, *row] for number, row in enumerate(cells, start=1)]
    blocks: list[list[int]] = []
    for place in range(len(lead), len(names)):
        if not blocks or _length([sizes[p] for p in [*blocks[-1], place]]) > limit:
            blocks.append([*lead])
        blocks[-1].append(place)
    return "\n\n".join(
        _text([[row[place] for place in block] for row in cells], [names[place] for place in block])
        for block in blocks
    )


def fitted_rows(rows: Sequence[Mapping[str, Any]], *, keys: int = 1, missing: str = "") -> str:
    """:func:`fitted` of rows that name their columns; ``missing`` stands for what one has not."""
    headers = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[missing if row.get(n) is None else row[n] for n in headers] for row in rows]
    return fitted(cells, headers, keys=keys)


def _length(sizes: Sequence[int]) -> int:
    return sum(sizes) + GAP * (len(sizes) - 1)


def _text(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
    if len(rows) <= ALIGNED:
        from tabulate import tabulate

        return str(tabulate(rows, headers=list(headers), disable_numparse=True))
    words = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *words, strict=True)]
    lines = [headers, ["-" * width for width in widths], *words]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
