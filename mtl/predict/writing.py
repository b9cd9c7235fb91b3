"""Answered rows in a file: CSV, TSV, JSON lines or parquet, by the suffix of its name.

A job writes parts, one per piece of the input, and joins them at the end: so what was answered
before a kill stays, and the file under its own name is always whole.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

SEPARATOR = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATOR, ".jsonl", ".ndjson", ".parquet")


def check_suffix(path: Path) -> None:
    """Refuse a name whose suffix says nothing. Raises RequestError."""
    if path.suffix.lower() not in SUFFIXES:
        guess = did_you_mean(path.suffix.lower(), SUFFIXES)
        raise RequestError(
            f"--output {path}: its suffix must be one of {', '.join(SUFFIXES)}.{guess}"
        )


def beside(table: pa.Table, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> pa.Table:
    """``table`` with further columns."""
    import pyarrow as pa

    for name, values in columns.items():
        array = pa.array(values) if not isinstance(values, np.ndarray) else pa.array(values.copy())
        table = table.append_column(name, array)
    return table


def write_part(path: Path, table: pa.Table, suffix: str) -> None:
    """Write a part, whole or not at all; of separated files without the line of names."""
    temporary = path.with_name(f".{path.name}.tmp")
    if suffix == ".parquet":
        import pyarrow.parquet as parquet

        parquet.write_table(table, temporary)
    else:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            if suffix in SEPARATOR:
                writer = csv.writer(stream, delimiter=SEPARATOR[suffix], lineterminator="\n")
                cells = [_cells(table.column(name)) for name in table.column_names]
                writer.writerows(zip(*cells, strict=True))
            else:
                for row in table.to_pylist():
                    stream.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    temporary.replace(path)


def _cells(column: pa.ChunkedArray) -> list[Any]:
    """Texts as they are, numbers as short as they can be read back, lists and objects as JSON."""
    import pyarrow as pa

    if pa.types.is_floating(column.type):
        numbers, absent = column.to_numpy(), column.is_null().to_pylist()  # of which NaN is none
        return ["" if no else _shortest(n) for n, no in zip(numbers, absent, strict=True)]
    values = column.to_pylist()
    if pa.types.is_nested(column.type):
        return [json.dumps(value, ensure_ascii=False, default=str) for value in values]
    return ["" if value is None else value for value in values]


def _shortest(value: np.floating[Any]) -> str:
    return np.format_float_positional(value, unique=True, trim="0")


def join_parts(parts: Sequence[Path], names: Sequence[str], target: Path) -> None:
    """Put the parts together under the name of ``target``, in their order."""
    suffix = target.suffix.lower()
    temporary = target.with_name(f".tmp-{target.name}")
    try:
        if suffix == ".parquet":
            _join_parquet(parts, temporary)
        else:
            with temporary.open("wb") as stream:
                if suffix in SEPARATOR:
                    stream.write(_line(names, SEPARATOR[suffix]))
                for part in parts:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, stream, 1 << 20)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _line(names: Sequence[str], separator: str) -> bytes:
    import io

    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator, lineterminator="\n").writerow(names)
    return stream.getvalue().encode()


def _join_parquet(parts: Sequence[Path], target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    # a column of nulls alone in one piece is of another type than in the next
    schema = pa.unify_schemas(
        [parquet.read_schema(part) for part in parts], promote_options="permissive"
    )
    with parquet.ParquetWriter(target, schema) as writer:
        for part in parts:
            writer.write_table(parquet.read_table(part, partitioning=None).cast(schema))
