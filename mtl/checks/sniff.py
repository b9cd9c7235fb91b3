"""What ``mtl.tasks new`` finds out about files before it reads them: their dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtl.checks.headers import looks_like_a_row
from mtl.data.charsets import decoded, guess_encoding, read_bytes
from mtl.data.separated import Cells, read_cells
from mtl.data.textfiles import row_fields
from mtl.errors import RequestError
from mtl.tasks.dialect import LISTED, SEPARATED, SEPARATORS, Dialect, spoken


@dataclass(frozen=True)
class Found:
    """The dialect of one file, and what was guessed of it, a sentence each."""

    path: Path
    dialect: Dialect
    said: Mapping[str, str]


def find_dialect(paths: Sequence[Path], given: Dialect) -> tuple[Dialect, list[str]]:
    """One dialect for all files of a task.

    Args:
        given: what the user said; it is no guess.

    Returns:
        The dialect, with nothing in it that the suffixes say already, and what was guessed.

    Raises:
        RequestError: a file that no dialect reads, or files that need different ones.
    """
    found = [_of_file(path, given) for path in paths]
    said: dict[str, str] = {}
    chosen: dict[str, Any] = {}
    for key, kinds in (
        ("encoding", (*SEPARATED, *LISTED)),
        ("separator", (*SEPARATED,)),
        ("quoting", (*SEPARATED,)),
        ("header", (*SEPARATED,)),
        ("columns", (*SEPARATED,)),
        ("field", LISTED),
    ):
        able = [one for one in found if one.path.suffix.lower() in kinds]
        values = {getattr(one.dialect, key): one for one in able}
        chosen[key] = next(iter(values), () if key == "columns" else None)
        if len(values) > 1:
            chosen[key] = _shared(key, able, values)
        for one in able:
            if key in one.said and chosen[key] is not None:
                said.setdefault(key, one.said[key])
    return Dialect(**chosen), [*said.values()]


def _shared(key: str, able: Sequence[Found], values: Mapping[Any, Found]) -> Any:
    """One value that reads all files, where they were found to differ."""
    if key == "encoding":  # a file of ASCII alone is of every encoding
        wanted = {
            value for value, one in values.items() if value or not read_bytes(one.path).isascii()
        }
        rest = [one for one in able if one.dialect.encoding is None]
        if len(wanted) == 1 and all(read_bytes(one.path).isascii() for one in rest):
            return wanted.pop()
    if key == "quoting" and {*values} == {None, "none"}:
        rest = [one for one in able if one.dialect.quoting is None]
        if all(map(_unquoted_alike, rest)):
            return "none"
    if key == "separator":
        effective = {one.dialect.separates(one.path.suffix) for one in able}
        if len(effective) == 1:
            return effective.pop()
    told = "; ".join(f"{one.path}: {_told(key, value)}" for value, one in values.items())
    raise RequestError(
        f"The files of a task are read alike, and these differ ({told}). Write one of them again "
        f"like the other, or say --{_OPTIONS.get(key, key)} if it is the same for both."
    )


_OPTIONS = {"quoting": "quoted or --unquoted", "header": "header or --no-header"}


def _told(key: str, value: Any) -> str:
    usual = {"encoding": "UTF-8", "separator": "as its suffix says", "quoting": "quoted"}
    if value is None or value == ():
        return f"{key} {usual.get(key, 'usual')}"
    return f"{key} {value!r}"


def _unquoted_alike(one: Found) -> bool:
    try:
        quoted, plain = (_cells(one.path, replace(one.dialect, quoting=q)) for q in (None, "none"))
    except RequestError:
        return False
    return len(quoted.rows) == len(plain.rows)


def _of_file(path: Path, given: Dialect) -> Found:
    kind = path.suffix.lower()
    if kind not in {*SEPARATED, *LISTED}:
        return Found(path, given, {})
    said: dict[str, str] = {}
    dialect = _encoding(path, given, said)
    if kind in LISTED:
        return Found(path, _field(path, dialect, said), said)
    for look in (_separator, _header, _quoting):
        dialect = look(path, dialect, said)
    return Found(path, dialect, said)


def _encoding(path: Path, given: Dialect, said: dict[str, str]) -> Dialect:
    if given.encoding is not None:
        return given
    try:
        decoded(path, None)
    except RequestError:
        found = guess_encoding(read_bytes(path))
        if found.encoding is None:
            raise
        decoded(path, found.encoding)
        said["encoding"] = (
            f"encoding: {found.encoding}, because {path.name} is no UTF-8; it reads "
            f"{found.sample!r} then (--encoding NAME for another)"
        )
        return replace(given, encoding=found.encoding)
    return given


def _field(path: Path, dialect: Dialect, said: dict[str, str]) -> Dialect:
    if dialect.field is not None:
        return dialect
    text = decoded(path, dialect.encoding)
    if not text.lstrip().startswith("{"):
        return dialect
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # lines, or broken: the reader says which
        return dialect
    fields = row_fields(value)
    counts = [*fields.values()]
    if not fields or (len(counts) > 1 and counts[0] == counts[1]):
        return dialect
    field = next(iter(fields))
    if path.suffix.lower() != ".json" and counts[0] < 2:
        return dialect  # a line of JSON lines
    said["field"] = (
        f"field: {field}, because {path.name} holds one object with {counts[0]} objects there "
        "(--field NAME for another)"
    )
    return replace(dialect, field=field)


def _separator(path: Path, dialect: Dialect, said: dict[str, str]) -> Dialect:
    if dialect.separator is not None:
        return dialect
    usual = SEPARATED[path.suffix.lower()]
    text = decoded(path, dialect.encoding)
    first = next((line for line in text.splitlines() if line.strip()), "")
    others = [one for one in SEPARATORS if one != usual and one in first]
    if not others:
        return dialect
    fitting = [one for one in (usual, *others) if _divides(path, replace(dialect, separator=one))]
    # A comma of running text has a space after it.
    tight = [one for one in fitting if not _spaced(path, replace(dialect, separator=one))]
    fitting = tight or fitting
    if len(fitting) > 1:
        names = " and ".join(spoken(one) for one in fitting)
        raise RequestError(
            f"{path} can be read with {names} between its cells: every line has the same number of "
            f"either. Say which: --separator {_typed(fitting[0])} or --separator "
            f"{_typed(fitting[1])}."
        )
    if not fitting or fitting[0] == usual:
        return dialect
    said["separator"] = (
        f"separator: {spoken(fitting[0])} between the cells of {path.name} (--separator CHARACTER "
        "for another)"
    )
    return replace(dialect, separator=fitting[0])


def _typed(separator: str) -> str:
    return {"\t": "tab", ";": "semicolon", "|": "pipe"}.get(separator, separator)


def _divides(path: Path, dialect: Dialect) -> bool:
    """Whether it reads the file as two columns or more."""
    found = _lines(path, dialect)
    return found is not None and len(found.names) > 1


def _spaced(path: Path, dialect: Dialect) -> bool:
    """Whether most cells but the first of a row begin with a space."""
    found = _lines(path, dialect)
    cells = [cell for row in found.rows for cell in row[1:]] if found else []
    return sum(cell.startswith(" ") for cell in cells) > len(cells) / 2


def _lines(path: Path, dialect: Dialect) -> Cells | None:
    """All lines as rows, quoted or not; None where neither reads the file."""
    for quoting in (dialect.quoting,) if dialect.quoting else ("double", "none"):
        try:
            return _cells(path, replace(dialect, quoting=quoting, header=False, columns=()))
        except RequestError:
            continue
    return None


def _quoting(path: Path, dialect: Dialect, said: dict[str, str]) -> Dialect:
    if dialect.quoting is not None:
        return dialect
    try:
        _cells(path, dialect)
    except RequestError as error:
        plain = replace(dialect, quoting="none")
        try:
            rows = len(_cells(path, plain).rows)
        except RequestError:
            raise error from None  # what is wrong with quotes says more
        reason = str(error).removeprefix(f"{path}, ").split(". ")[0]
        said["quoting"] = (
            f"quoting: none, so every line is a row ({rows:,} rows), because with quotes {reason} "
            "(--quoted for cells in quotes)"
        )
        return plain
    return dialect


def _header(path: Path, dialect: Dialect, said: dict[str, str]) -> Dialect:
    if dialect.header is True:
        return dialect
    found = _lines(path, dialect)
    if found is None:  # the reader says why
        return dialect
    first, *rest = found.rows
    why = looks_like_a_row(first, [*zip(*rest, strict=True)] if rest else [()] * len(first))
    if dialect.header is None and why is None:
        if dialect.columns:
            raise RequestError(
                f"--columns names the columns of a file without a header, and the first line of "
                f"{path} may be one ({', '.join(first)}). Say --no-header if it is a row."
            )
        return dialect
    names = dialect.columns or tuple(found.names)
    if dialect.header is None:
        said["header"] = (
            f"header: false, because the first line of {path.name} looks like a row: {why} "
            "(--header if it names the columns)"
        )
    if not dialect.columns:
        said["columns"] = f"columns: {', '.join(names)} (--columns NAME … for others)"
    return replace(dialect, header=False, columns=names)


def _cells(path: Path, dialect: Dialect) -> Cells:
    return read_cells(path, decoded(path, dialect.encoding), dialect)
