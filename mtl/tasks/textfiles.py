"""CSV, TSV, JSON and JSON lines as arrow tables, with the line behind every complaint.

Nothing is guessed: cells of CSV files stay text (labels and numbers are read where they are
needed), and one column of a JSON file must hold one type.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST_TEXT = 1 << 20
"""Characters of one text at most, about 500 pages: what is longer is a quote that never closes, or
a file that is no table. (The csv module's own limit, 131,072, is below real documents.)"""
_TOO_LONG = (
    "more than {limit:,} characters. Is a quote never closed, or a line break lost? Cut real "
    "documents of this length before; an encoder reads some hundred words."
)


def read_text_file(path: Path) -> tuple[pa.Table, Sequence[int]]:
    """Read a file by its suffix.

    Returns:
        The table, and the line of the file at which each row starts.

    Raises:
        RequestError: unknown suffix, missing, not UTF-8, broken; names file and line.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise RequestError(
            f"{path}: the suffix {path.suffix!r} is unknown. Known: "
            f"{', '.join([*READERS, '.parquet'])}."
        )
    columns, lines = reader(path, _read(path))
    if not columns:
        raise RequestError(f"{path} is empty: there is no row in it.")
    return _table(path, columns, lines), lines


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"Cannot read {path}: {error.strerror or error}.") from error
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise RequestError(f"{path}, line 1: this is {what}, not text.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RequestError(
            f"{path}, line {line}: the byte 0x{data[error.start]:02x} is not UTF-8. Save the file "
            f"as UTF-8, for example with `iconv -f latin1 -t utf-8 {path.name}`."
        ) from error
    zero = text.find("\0")
    if zero >= 0:
        line = text.count("\n", 0, zero) + 1
        raise RequestError(
            f"{path}, line {line}: there is a NUL character, which no text has. The file is "
            "damaged, or binary; write it again."
        )
    return text


_MAGIC = {
    b"\xff\xfe": "UTF-16 (save it as UTF-8, for example with `iconv -f utf-16 -t utf-8`)",
    b"\xfe\xff": "UTF-16 (save it as UTF-8, for example with `iconv -f utf-16 -t utf-8`)",
    b"PK\x03\x04": "a zip archive or a spreadsheet (unpack it, or save the sheet as CSV)",
    b"\x1f\x8b": "a gzip archive (unpack it with `gunzip`)",
    b"PAR1": "a parquet file (give it the suffix .parquet)",
}


def too_long(place: str) -> RequestError:
    """The error for a text above :data:`LONGEST_TEXT`; ``place`` says where it stands."""
    return RequestError(f"{place}: a text has {_TOO_LONG.format(limit=LONGEST_TEXT)}")


Columns = Mapping[str, Sequence[Any]]


def _csv(path: Path, text: str, delimiter: str) -> tuple[Columns, list[int]]:
    csv.field_size_limit(LONGEST_TEXT)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    rows: list[list[str]] = []
    lines: list[int] = []
    start = 1
    try:
        for cells in reader:
            first, start = start, reader.line_num + 1
            if not cells:  # an empty line
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                twice = sorted({name for name in header if header.count(name) > 1})
                if twice:
                    raise RequestError(
                        f"{path}, line {first}: two columns are called {twice[0]!r}."
                    )
                _refuse_other_separator(path, first, header, delimiter)
                continue
            if len(cells) != len(header):
                raise RequestError(
                    f"{path}, line {first}: {len(cells)} cells where the header names "
                    f"{len(header)} columns ({', '.join(header)}). A cell that holds the separator "
                    "or a line break must stand in double quotes."
                )
            rows.append(cells)
            lines.append(first)
    except csv.Error as error:
        if "field limit" in str(error):
            raise too_long(f"{path}, line {start}") from error
        raise RequestError(
            f"{path}, line {start}: {error}. Check the quotes of this row: a quote inside a quoted "
            "cell is written twice."
        ) from error
    if header is None:
        raise RequestError(f"{path} is empty; its first line must name the columns.")
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}, lines


def _refuse_other_separator(path: Path, line: int, header: list[str], delimiter: str) -> None:
    others = {",": "commas", ";": "semicolons", "\t": "tabs"}
    used = next((other for other in others if other != delimiter and other in header[0]), None)
    if len(header) > 1 or used is None:
        return
    advice = {",": "Give it the suffix .csv.", "\t": "Give it the suffix .tsv."}
    raise RequestError(
        f"{path}, line {line}: the header is one cell, {header[0]!r}: its columns are separated by "
        f"{others[used]}, and by {others[delimiter]} where the suffix is {path.suffix}. "
        + advice.get(used, f"Save it with {others[delimiter]}.")
    )


def _json_lines(path: Path, text: str) -> tuple[Columns, list[int]]:
    objects: list[dict[str, Any]] = []
    lines: list[int] = []
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise RequestError(f"{path}, line {number}: no valid JSON ({error}).") from error
        if not isinstance(value, dict):
            raise RequestError(
                f"{path}, line {number}: each line must be an object {{…}}, this one is "
                f"{type(value).__name__}."
            )
        objects.append(value)
        lines.append(number)
    return _columns(objects), lines


def _json(path: Path, text: str) -> tuple[Columns, list[int]]:
    try:
        value = json.loads(text)
    except ValueError as error:
        if text.lstrip().startswith("{") and "Extra data" in str(error):
            return _json_lines(path, text)  # JSON lines in a file called .json, as many are
        raise RequestError(f"{path} is no valid JSON: {error}.") from error
    if isinstance(value, dict):  # one object: a file of JSON lines that has one line
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RequestError(f"{path} must hold a list of objects, one per row.")
    return _columns(value), []


def _columns(objects: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for item in objects for name in item)
    return {name: [item.get(name) for item in objects] for name in names}


def _table(path: Path, columns: Columns, lines: Sequence[int]) -> pa.Table:
    import pyarrow as pa

    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            kinds = [type(value) for value in values]
            first = next(kind for kind in kinds if kind is not type(None))
            row = next((n for n, kind in enumerate(kinds) if kind not in (first, type(None))), None)
            if row is None:
                raise RequestError(f"{path}: column {name!r} cannot be read: {error}.") from error
            place = f"line {lines[row]}" if lines else f"row {row}"
            raise RequestError(
                f"{path}, {place}: column {name!r} holds {values[row]!r} "
                f"({kinds[row].__name__}) where earlier rows hold {first.__name__}. One column "
                "must hold one type."
            ) from error
    return pa.table(arrays)


READERS: dict[str, Callable[[Path, str], tuple[Columns, list[int]]]] = {
    ".csv": lambda path, text: _csv(path, text, ","),
    ".tsv": lambda path, text: _csv(path, text, "\t"),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
}
