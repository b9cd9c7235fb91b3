"""Rows in whatever form a user has them, as a table with the columns that a task's templates read.

Forms: a list of texts, of tuples or of dicts; what has such a list (a pandas or polars series, a
numpy or pyarrow array); a dict of columns; a pandas or polars frame; a ``datasets.Dataset``; a
pyarrow table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtl.data.nested import column_names
from mtl.errors import RequestError, did_you_mean
from mtl.words import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.tasks import TaskSpec


def to_table(spec: TaskSpec, inputs: Any) -> pa.Table:
    """``inputs`` as a table.

    Texts and tuples fill the columns of the task's templates in the order in which these first
    name them (``spec.columns``); forms with names are taken as they are, further columns stay
    unread.

    Raises:
        RequestError: an unknown form, rows of different forms or lengths, another number of texts
            than the task reads, or a column that a row has not; says what the task reads.
    """
    import pyarrow as pa

    try:
        table = _table(spec, inputs)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise _refused(spec, f"the rows cannot be made a table: {reason}") from error
    there = column_names(table)
    missing = [] if spec.prepare else [name for name in spec.columns if name not in there]
    missing = [name for name in missing if name not in table.column_names]
    if missing:
        guess = did_you_mean(missing[0], there)
        columns = ", ".join(there) or "none"
        raise _refused(spec, f"there is no column {missing[0]!r}, only {columns}.{guess}")
    return table


def _table(spec: TaskSpec, inputs: Any) -> pa.Table:
    import pyarrow as pa

    if isinstance(inputs, pa.Table):
        return inputs
    if hasattr(inputs, "with_format") and hasattr(inputs, "column_names"):  # datasets.Dataset
        if isinstance(inputs.column_names, dict):
            splits = ", ".join(inputs.column_names)
            raise _refused(spec, f"a DatasetDict has several splits ({splits}); take one of them")
        return pa.table(inputs.with_format("arrow")[:])
    if hasattr(inputs, "to_arrow") and hasattr(inputs, "columns"):  # polars
        return inputs.to_arrow()
    if hasattr(inputs, "iloc") and hasattr(inputs, "columns"):  # pandas
        return pa.Table.from_pandas(inputs, preserve_index=False)
    if isinstance(inputs, Mapping):
        return _columns(spec, inputs)
    as_list = next((n for n in ("tolist", "to_list", "to_pylist") if hasattr(inputs, n)), None)
    if as_list is not None:  # a series, or an array of one text or of a row of texts each
        inputs = getattr(inputs, as_list)()
    if isinstance(inputs, str | bytes) or not isinstance(inputs, Sequence):
        what = "one text" if isinstance(inputs, str) else f"{type(inputs).__name__}"
        raise _refused(spec, f"{what} is no list of rows; write [row, …]")
    if not len(inputs):
        raise _refused(spec, "there is no row")
    first = inputs[0]
    if isinstance(first, Mapping):
        _alike(spec, inputs, Mapping, "a dict")
        # pyarrow takes the columns of the first row alone
        every = list(dict.fromkeys(name for row in inputs for name in row))
        _whole(spec, inputs, every)
        return pa.Table.from_pylist([{name: row.get(name) for name in every} for row in inputs])
    if isinstance(first, str):
        _alike(spec, inputs, str, "a text")
        return pa.table(dict(zip(_names(spec, 1), [list(inputs)], strict=True)))
    if not isinstance(first, list | tuple):
        raise _refused(spec, f"row 0 is {type(first).__name__}, no text, tuple or dict")
    _alike(spec, inputs, list | tuple, "a tuple of texts")
    names = _names(spec, len(first))
    for row, values in enumerate(inputs):
        if len(values) != len(names):
            raise _refused(spec, f"row {row} has {counted(len(values), 'value')}")
    return pa.table(
        {name: list(values) for name, values in zip(names, zip(*inputs, strict=True), strict=True)}
    )


def _columns(spec: TaskSpec, inputs: Mapping[Any, Any]) -> pa.Table:
    import pyarrow as pa

    lone = next((name for name, values in inputs.items() if isinstance(values, str)), None)
    if lone is not None:
        raise _refused(spec, f"column {lone!r} is one text; a dict holds a list per column")
    columns = {str(name): list(values) for name, values in inputs.items()}
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise _refused(spec, f"the columns are of different lengths ({said})")
    return pa.table(columns)


def _alike(spec: TaskSpec, rows: Sequence[Any], kind: Any, name: str) -> None:
    for number, row in enumerate(rows):
        if not isinstance(row, kind):
            raise _refused(spec, f"row 0 is {name}, row {number} is {type(row).__name__}")


def _whole(spec: TaskSpec, rows: Sequence[Mapping[Any, Any]], every: Sequence[Any]) -> None:
    """Refuse a row without a key that others have and a template reads: it would be empty text."""
    read = [] if spec.prepare else [name for name in spec.columns if name in every]
    for number, row in enumerate(rows):
        for name in read:
            if name not in row:
                guess = did_you_mean(name, [str(key) for key in row])
                raise _refused(spec, f"row {number} has no {name!r}.{guess}")


def _names(spec: TaskSpec, given: int) -> tuple[str, ...]:
    if spec.prepare:
        raise _refused(
            spec,
            f"its rows are reshaped by {spec.prepare!r} before the templates, so give dicts or "
            "columns with the names of the data",
        )
    if given != len(spec.columns):
        raise _refused(spec, f"each row has {counted(given, 'value')}")
    return spec.columns


def _refused(spec: TaskSpec, why: str) -> RequestError:
    reads = ", ".join(spec.columns)
    ended = why if why.endswith((".", "?")) else f"{why}."
    return RequestError(
        f"Cannot answer these rows with task {spec.id!r}: {ended} It reads "
        f"{counted(len(spec.columns), 'column')}: {reads}. Take a list of "
        f"{'texts' if len(spec.columns) == 1 else f'tuples ({reads})'} or of dicts, a dict of "
        "columns, a series or array of one of these, a pandas frame, a datasets.Dataset or a "
        "pyarrow table."
    )
