"""CSV, TSV, JSON and JSON lines as arrow tables, with the line behind every complaint.

Nothing is guessed: cells of CSV files stay text (labels and numbers are read where they are
needed), and one column of a JSON file must hold one type. What a suffix does not say, the task's
file does (:class:`mtl.tasks.dialect.Dialect`).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.data.charsets import check_magic, decoded
from mtl.data.separated import Cells, cells_in_pieces, read_cells
from mtl.errors import RequestError
from mtl.tasks.dialect import SEPARATED, Dialect

if TYPE_CHECKING:
    import pyarrow as pa


def read_text_file(path: Path, dialect: Dialect | None = None) -> tuple[pa.Table, Sequence[int]]:
    """Read a file by its suffix.

    Args:
        dialect: what the suffix does not say.

    Returns:
        The table, and the line of the file at which each row starts.

    Raises:
        RequestError: unknown suffix, missing, of another encoding, broken; names file and line.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise RequestError(
            f"{path}: the suffix {path.suffix!r} is unknown. Known: "
            f"{', '.join([*READERS, '.parquet'])}."
        )
    dialect = dialect or Dialect()
    columns, lines = reader(path, decoded(path, dialect.encoding), dialect)
    if not columns:
        raise RequestError(f"{path} is empty: there is no row in it.")
    return _table(path, columns, lines), lines


Columns = Mapping[str, Sequence[Any]]


def pieces_of(path: Path, dialect: Dialect, most: int) -> Iterator[tuple[pa.Table, Sequence[int]]]:
    """The rows of a file, up to ``most`` at a time, and the line of the file where each starts.

    No more of the file is held than that.

    A ``.json`` file, which is one value, is read whole.

    Raises:
        RequestError: as :func:`read_text_file`, when the place in question is reached.
    """
    suffix = path.suffix.lower()
    if suffix == ".json" or dialect.field is not None or suffix not in READERS:
        table, lines = read_text_file(path, dialect)
        for start in range(0, len(table), most):
            yield table.slice(start, most), lines[start : start + most]
        return
    check_magic(path)
    try:
        with path.open(encoding=dialect.encoding or "utf-8-sig", newline="") as stream:
            if suffix in SEPARATED:
                for found in cells_in_pieces(path, stream, dialect, most):
                    if found.rows:
                        yield _table(path, _by_name(found), found.lines), found.lines
                return
            for first, piece in _some(stream, most):
                columns, numbers = _json_lines(path, "".join(piece), dialect, first)
                if numbers:
                    yield _table(path, columns, numbers), numbers
    except (UnicodeDecodeError, UnicodeError) as error:
        decoded(path, dialect.encoding)  # says which line, and what it looks like
        raise RequestError(f"{path} cannot be read as text: {error}.") from error
    except OSError as error:
        raise RequestError(f"Cannot read {path}: {error.strerror or error}.") from error


def _some(stream: Iterator[str], most: int) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line, and up to ``most`` lines."""
    first = 1
    while lines := list(islice(stream, most)):
        yield first, lines
        first += len(lines)


def _by_name(found: Cells) -> Columns:
    return {name: [row[place] for row in found.rows] for place, name in enumerate(found.names)}


def _separated(path: Path, text: str, dialect: Dialect) -> tuple[Columns, list[int]]:
    found = read_cells(path, text, dialect)
    return _by_name(found), found.lines


def _json_lines(
    path: Path, text: str, dialect: Dialect, first: int = 1
) -> tuple[Columns, list[int]]:
    if dialect.field is not None:
        return _json(path, text, dialect)
    objects: list[dict[str, Any]] = []
    lines: list[int] = []
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=first):
        if not line.strip():
            continue
        value = _parsed(line, f"{path}, line {number}: no valid JSON")
        if not isinstance(value, dict):
            raise RequestError(
                f"{path}, line {number}: each line must be an object {{…}}, this one is "
                f"{type(value).__name__}."
            )
        objects.append(value)
        lines.append(number)
    return _columns(objects), lines


def _json(path: Path, text: str, dialect: Dialect) -> tuple[Columns, list[int]]:
    try:
        value = _parsed(text, f"{path} is no valid JSON")
    except RequestError as error:
        lines = text.lstrip().startswith("{") and "Extra data" in str(error)
        if lines and dialect.field is None:
            return _json_lines(path, text, dialect)  # JSON lines called .json, as many are
        raise
    if dialect.field is not None:
        value = _field(path, value, dialect.field)
    elif isinstance(value, dict):
        _refuse_wrapped(path, value)
        value = [value]  # one object: a file of JSON lines that has one line
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        within = f"field {dialect.field!r} of {path}" if dialect.field else str(path)
        raise RequestError(f"{within} must hold a list of objects, one per row.")
    return _columns(value), []


def _parsed(text: str, complaint: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RequestError(f"{complaint}: {error}.") from error
    except RecursionError as error:
        raise RequestError(f"{complaint}: brackets are nested too deeply.") from error


def row_fields(value: Any) -> dict[str, int]:
    """Keys of a JSON object that hold lists of objects (inner ones with dots), and how many."""
    found = {}
    for name, inner in value.items() if isinstance(value, dict) else ():
        if isinstance(inner, list) and inner and all(isinstance(item, dict) for item in inner):
            found[str(name)] = len(inner)
        found |= {f"{name}.{rest}": count for rest, count in row_fields(inner).items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _field(path: Path, value: Any, field: str) -> Any:
    for part in field.split("."):
        if not isinstance(value, dict) or part not in value:
            known = ", ".join(value) if isinstance(value, dict) else f"no keys, {_sort(value)}"
            raise RequestError(f"{path} has no field {field!r}: at {part!r} there is {known}.")
        value = value[part]
    return value


def _refuse_wrapped(path: Path, value: Mapping[str, Any]) -> None:
    """An object that holds the rows is no row: as one it would be a table of a single line."""
    fields = row_fields(value)
    if fields:
        listed = " or ".join(f"`field: {name}`" for name in [*fields][:4])
        raise RequestError(
            f"{path} holds one object, not a list of rows; the rows are in one of its fields. "
            f"Write {listed} below `data` in the task file "
            f"(`python -m mtl.tasks new --field {next(iter(fields))}`)."
        )
    columns = value and all(isinstance(item, list | dict) for item in value.values())
    if columns:  # what pandas writes unless told otherwise, and its like
        rows = all(isinstance(item, dict) for item in value.values())
        shape = "an object per column or per row" if rows else "a list per column"
        raise RequestError(
            f"{path} holds one object with {shape}, not a list of rows. Write it again as rows: "
            f"{_command(_REWRITE.format(_orient(value)), path, f'{path.stem}-rows.jsonl')}."
        )


def _orient(value: Mapping[str, Any]) -> str:
    if {"columns", "data"} <= {*value}:
        return "split"
    inner = [{*item} for item in value.values() if isinstance(item, dict)]
    numbered = bool(inner) and all(key.isdecimal() for keys in inner for key in keys)
    return "index" if len(inner) == len(value) and not numbered else "columns"


_REWRITE = (
    "import pandas, sys; pandas.read_json(sys.argv[1], orient='{}', dtype=False, "
    "convert_axes=False, convert_dates=False).to_json(sys.stdout, orient='records', lines=True, "
    "force_ascii=False)"
)


def _command(code: str, path: Path, name: str) -> str:
    """A command line that reads a file and writes another one where it is typed."""
    return f'`python -c "{code}" {shlex.quote(str(path))} > {shlex.quote(name)}`'


def _sort(value: Any) -> str:
    return f"a {type(value).__name__}"


def _columns(objects: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for item in objects for name in item)
    return {name: [item.get(name) for item in objects] for name in names}


def _table(path: Path, columns: Columns, lines: Sequence[int]) -> pa.Table:
    import pyarrow as pa

    def place(row: int) -> str:
        return f"line {lines[row]}" if lines else f"row {row}"

    arrays = {}
    for name, values in columns.items():
        if _HALF.search(name):
            mend = _mend(path, bool(lines))
            raise RequestError(f"{path}: the name of column {name!r} holds {_HALVED}. {mend}")
        try:
            arrays[name] = pa.array(values)
        except UnicodeEncodeError as error:
            rows = [
                row for row, value in enumerate(values) if any(map(_HALF.search, _texts(value)))
            ]
            mend = _mend(path, bool(lines))
            some = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
            raise RequestError(
                f"{path}, {place(rows[0])}: column {name!r} holds {_HALVED}{some}. {mend}"
            ) from error
        except (pa.ArrowException, OverflowError) as error:
            kinds = [type(value) for value in values]
            first = next(kind for kind in kinds if kind is not type(None))
            long = next((n for n, v in enumerate(values) if _beyond_64_bits(v)), None)
            if long is not None:
                raise RequestError(
                    f"{path}, {place(long)}: column {name!r} holds {values[long]}, a whole number "
                    "of more than 64 bits. Write such identifiers as text, in quotes."
                ) from error
            same = {int, float} if first in (int, float) else {first}
            row = next((n for n, kind in enumerate(kinds) if kind not in {*same, type(None)}), None)
            if row is None:
                raise RequestError(f"{path}: column {name!r} cannot be read: {error}.") from error
            raise RequestError(
                f"{path}, {place(row)}: column {name!r} holds {values[row]!r} "
                f"({kinds[row].__name__}) where earlier rows hold {first.__name__}. One column "
                "must hold one type."
            ) from error
    return pa.table(arrays)


def _beyond_64_bits(value: Any) -> bool:
    return isinstance(value, int) and not -(1 << 63) <= value < 1 << 63


_HALF = re.compile("[\ud800-\udfff]")
_HALVED = "half of a surrogate pair (such as \\ud83d), which is no character: an emoji cut in two"


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _mend(path: Path, lines: bool) -> str:
    read, write = "json.loads(x)", "for x in open(sys.argv[1], 'rb') if x.strip()"
    if not lines:
        read, write = "json.load(open(sys.argv[1], 'rb'))", "for _ in range(1)"
    code = (
        f"import json, sys; sys.stdout.buffer.writelines((json.dumps({read}, ensure_ascii=False) "
        f"+ chr(10)).encode('utf-8', 'replace') {write})"
    )
    return (
        "Make the file again with whole characters, or put a question mark in place of each: "
        f"{_command(code, path, f'{path.stem}-mended{path.suffix}')}."
    )


READERS: dict[str, Callable[[Path, str, Dialect], tuple[Columns, list[int]]]] = {
    ".csv": _separated,
    ".tsv": _separated,
    ".txt": _separated,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
}
