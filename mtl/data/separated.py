"""Rows of files whose cells stand between separators (CSV, TSV), and lines that quotes swallow."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtl.errors import RequestError
from mtl.tasks.dialect import SEPARATORS, Dialect, spoken

LONGEST_TEXT = 1 << 20
"""Characters of one text at most, about 500 pages: what is longer is a quote that never closes, or
a file that is no table. (The csv module's own limit, 131,072, is below real documents.)"""
_TOO_LONG = (
    "more than {limit:,} characters. Is a quote never closed, or a line break lost? Cut real "
    "documents of this length before; an encoder reads some hundred words."
)

MOST_VALUES = 50
"""A column with more different cells than this says nothing about which line is a row."""
TEXT = 3
"""Words of a cell on average from which a column holds running text."""


def too_long(place: str) -> RequestError:
    """The error for a text above :data:`LONGEST_TEXT`; ``place`` says where it stands."""
    return RequestError(f"{place}: a text has {_TOO_LONG.format(limit=LONGEST_TEXT)}")


@dataclass(frozen=True)
class Cells:
    """What stands in a file.

    Attributes:
        names: of the columns.
        rows: a cell per name.
        lines: at which line of the file each row starts.
    """

    names: list[str]
    rows: list[list[str]]
    lines: list[int]


def read_cells(path: Path, text: str, dialect: Dialect) -> Cells:
    """Read a CSV or TSV file.

    Raises:
        RequestError: broken quotes, a row with more or fewer cells than there are columns, two
            columns of one name, no line at all, or lines that quotes swallowed
            (:func:`swallowed`) while the task does not say how quotes are meant.
    """
    (found,) = cells_in_pieces(path, io.StringIO(text, newline=""), dialect)
    return found


def cells_in_pieces(
    path: Path, stream: Iterable[str], dialect: Dialect, most: int | None = None
) -> Iterator[Cells]:
    """The same by up to ``most`` rows at a time (at least one piece); ``stream`` gives lines."""
    separator = dialect.separates(path.suffix)
    reader = _reader(stream, separator, dialect.quoting == "none")
    names: list[str] | None = [*dialect.columns] or None
    rows: list[list[str]] = []
    lines: list[int] = []
    start, given = 1, False
    try:
        for cells in reader:
            first, start = start, reader.line_num + 1
            if not cells:  # an empty line
                continue
            if names is None and dialect.header is False:
                names = [f"column_{number}" for number in range(1, len(cells) + 1)]
            if names is None:
                names = _names(path, first, cells, separator)
                continue
            if len(cells) != len(names):
                raise _other_number(path, first, cells, names, dialect)
            rows.append(cells)
            lines.append(first)
            if len(rows) == most:
                yield _checked(path, Cells(names, rows, lines), dialect, separator)
                rows, lines, given = [], [], True
    except csv.Error as error:
        if "field limit" in str(error):
            raise too_long(f"{path}, line {start}") from error
        advice = ""
        if dialect.quoting != "none":
            advice = (
                " Check the quotes of this row: a quote inside a quoted cell is written twice. "
                + _QUOTES_ARE_TEXT
            )
        raise RequestError(f"{path}, line {start}: {error}.{advice}") from error
    if names is None:
        raise RequestError(f"{path} is empty; its first line must name the columns.")
    if rows or not given:
        yield _checked(path, Cells(names, rows, lines), dialect, separator)


def _checked(path: Path, found: Cells, dialect: Dialect, separator: str) -> Cells:
    if dialect.quoting is None:
        _refuse_swallowed(path, found, separator)
    return found


_QUOTES_ARE_TEXT = (
    "Where quotes are part of the texts, write `quoting: none` below `data` in the task file "
    "(`python -m mtl.tasks new --unquoted`)."
)


def _reader(stream: Iterable[str], separator: str, unquoted: bool) -> csv._reader:  # type: ignore[name-defined]
    csv.field_size_limit(LONGEST_TEXT)
    if unquoted:
        return csv.reader(stream, delimiter=separator, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(stream, delimiter=separator, strict=True)


def _names(path: Path, line: int, cells: Sequence[str], separator: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise RequestError(f"{path}, line {line}: two columns are called {twice[0]!r}.")
    other = next((one for one in SEPARATORS if one != separator and one in header[0]), None)
    if len(header) == 1 and other is not None:
        written = '"\\t"' if other == "\t" else f'"{other}"'
        raise RequestError(
            f"{path}, line {line}: the header is one cell, {header[0]!r}. Its columns seem to be "
            f"separated by {spoken(other)}, and are read by {spoken(separator)}. Write "
            f"`separator: {written}` below `data` in the task file."
        )
    return header


def _other_number(
    path: Path, line: int, cells: Sequence[str], names: Sequence[str], dialect: Dialect
) -> RequestError:
    what = f"{len(cells)} cells where the header names {len(names)} columns ({', '.join(names)})"
    if dialect.header is False:
        what = f"{len(cells)} cells where `columns` names {len(names)} ({', '.join(names)})"
    if dialect.quoting == "none":
        return RequestError(
            f"{path}, line {line}: {what}. With `quoting: none` no cell can hold the separator "
            "or a line break."
        )
    return RequestError(
        f"{path}, line {line}: {what}. A cell that holds the separator or a line break must stand "
        f"in double quotes. {_QUOTES_ARE_TEXT}"
    )


def _refuse_swallowed(path: Path, found: Cells, separator: str) -> None:
    merged = swallowed(found, separator)
    if not merged:
        return
    row, _ = max(merged, key=lambda item: item[1])
    total = sum(count for _, count in merged)
    first = found.lines[row]
    last = first + sum(cell.count("\n") for cell in found.rows[row])
    lost = f"{total} {'line' if total == 1 else 'lines'} that look like rows"
    raise RequestError(
        f"{path}, line {first}: a quote opens there and closes in line {last}, and what "
        f"stands between is read as one cell. So {lost} are no rows ({len(found.rows):,} are "
        "left). Write `quoting: none` below `data` in the task file if quotes are part of the "
        "texts (`python -m mtl.tasks new --unquoted`), `quoting: double` if this cell is meant "
        "(`--quoted`)."
    )


def swallowed(found: Cells, separator: str) -> list[tuple[int, int]]:
    """Rows with a cell in which whole rows stand: (row, lines that are lost in it).

    A cell over several lines is cut at its line breaks, and each piece at the separator. It was
    made of rows if every piece has the number of cells that a row's beginning, middle or end has
    there, and these cells fit the columns that they would stand in: a number where all are numbers,
    one of the known cells where there are at most :data:`MOST_VALUES`. Where no column can tell,
    tabs are enough, which no running text has.
    """
    long = [row for row, cells in enumerate(found.rows) if any("\n" in cell for cell in cells)]
    if not long:
        return []
    apart = {*long}
    sane = [cells for row, cells in enumerate(found.rows) if row not in apart]
    fits = [_fitting([cells[place] for cells in sane]) for place in range(len(found.names))]
    merged = []
    for row in long:
        for place, cell in enumerate(found.rows[row]):
            lost = _lost(cell, place, separator, fits)
            if lost:
                merged.append((row, lost))
    return merged


Fits = Callable[[str], bool]


def _fitting(cells: Sequence[str]) -> Fits | None:
    """Whether a cell may stand in a column; None where anything may."""
    known = {cell.strip() for cell in cells}
    if sum(len(cell.split()) for cell in cells) >= TEXT * len(cells):
        return None  # however often a text stands there
    if len(cells) >= 2 and all(is_number(cell) for cell in known):
        return is_number
    if len(known) <= min(MOST_VALUES, len(cells) // 2):
        return lambda cell: cell.strip() in known
    return None


def _lost(cell: str, place: int, separator: str, fits: Sequence[Fits | None]) -> int:
    pieces = [piece.rstrip("\r") for piece in cell.split("\n")]
    if len(pieces) < 2:
        return 0
    told = separator == "\t"
    lost = -1
    for number, piece in enumerate(pieces):
        if not piece and 0 < number < len(pieces) - 1:  # an empty line is no row anyway
            continue
        lost += 1
        begin = place if number == 0 else 0
        end = place + 1 if number == len(pieces) - 1 else len(fits)
        cells = piece.split(separator)
        if len(cells) != end - begin:
            return 0
        for text, fit in zip(cells, fits[begin:end], strict=True):
            if fit is not None:
                if not fit(text):
                    return 0
                told = True
    return lost if told else 0


def is_number(text: str) -> bool:
    """Whether a cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
