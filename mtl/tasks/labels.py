"""Reading label columns: names or numbers to class ids, or values; sets are in ``label_sets.py``.

What a single cell says is decided in one place, :func:`mtl.tasks.cells.read_cell`. Everything that
is not a label of the task is refused with the place where it stands. Rows are counted from 0, as
everywhere in the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError
from mtl.tasks.cells import Cell, read_cell
from mtl.tasks.label_remarks import number_meant, twin_of

if TYPE_CHECKING:
    import pyarrow as pa

HIDDEN = (
    "the label is -1, which marks hidden labels (official test data). Choose a protocol that does "
    "not use this split, such as scalearn; or, if -1 is a class, add it to the task's labels."
)
MEND = "Remove these rows or fill in the label."


@dataclass(frozen=True)
class LabelForm:
    """How one row says its labels, beside a name, a number, or a list of names.

    Attributes:
        columns: one column of 0 and 1 per label.
        vectors: a list of 0 and 1 in the order of the task's labels.
        separator: what stands between the names in a cell; empty where a cell is one name.
    """

    columns: tuple[str, ...] = ()
    vectors: bool = False
    separator: str = ""

    @property
    def indicators(self) -> bool:
        """Whether 0 and 1 stand for the labels, by place."""
        return self.vectors or bool(self.columns)


@dataclass(frozen=True)
class LabelColumn:
    """A label column with what messages need to say where it is.

    Attributes:
        values: as read: integers, floats, booleans, text, lists of these, or (of a form with
            ``columns``) structs with a field per column.
        names: the names of the classes if the data file declares them (an HF ``ClassLabel``).
        where: "task 'glue/rte', split 'train' of …, column 'label'".
        line: row → how the file is to be opened at it ("row 7", or "line 9 of a.csv").
        form: how a row says its labels.
    """

    values: pa.ChunkedArray
    names: tuple[str, ...] | None
    where: str
    line: Callable[[int], str]
    form: LabelForm = field(default_factory=LabelForm)

    def fail(self, row: int, why: str) -> RequestError:
        """The error for what stands in ``row``."""
        return RequestError(f"{self.where}, {self.line(row)}: {why}")


def label_column(
    table: pa.Table,
    name: str,
    form: LabelForm,
    where: str,
    line: Callable[[int], str] = lambda row: f"row {row}",
) -> LabelColumn:
    """The labels of a table: of column ``name``, or of the columns of ``form`` side by side."""
    import pyarrow as pa

    from mtl.tasks.layout import class_names

    if form.columns:
        named = ", ".join(map(repr, form.columns))
        pieces = [table.column(column).combine_chunks() for column in form.columns]
        values = pa.chunked_array([pa.StructArray.from_arrays(pieces, names=list(form.columns))])
        return LabelColumn(values, None, f"{where}, columns {named}", line, form)
    names = class_names(table.schema.metadata, name)
    return LabelColumn(table.column(name), names, f"{where}, column {name!r}", line, form)


def read_class_labels(column: LabelColumn, labels: Sequence[str]) -> np.ndarray:
    """(n,) int64 class ids.

    A cell is the label that is written as it; else a number is the label of the same value, where
    labels are numbers; else, where none is, a whole number is a place in the list (0 is the first).
    Where the data file declares names for its ids, these decide, and must be the task's. Of rows of
    0 and 1 (``column.form``) the class is the place of the only 1.

    Raises:
        RequestError: a missing label, −1 (hidden), or one that is not in the list.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.form.indicators:
        from mtl.tasks.label_sets import read_indicators

        ones = read_indicators(column, labels)
        several = np.flatnonzero(ones.sum(axis=1) != 1)
        if len(several):
            count = int(ones[several[0]].sum())
            raise column.fail(
                int(several[0]),
                f"{count} of the {len(labels)} labels are 1 ({len(several)} such rows), and a "
                "class is exactly one. For sets of labels write `kind: multilabel`.",
            )
        return ones.argmax(axis=1).astype(np.int64)
    refuse_nulls(column)
    values = column.values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if is_list(values.type):
        raise column.fail(0, f"a list of labels ({values[0].as_py()!r}) where one is expected.")
    if pa.types.is_nested(values.type):
        raise column.fail(0, not_a_label(read_cell(values[0].as_py())))
    encoded = pc.dictionary_encode(values)
    lookup = class_lookup(column, labels)
    ids = np.empty(len(encoded.dictionary), dtype=np.int64)
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    for code, value in enumerate(encoded.dictionary.to_pylist()):
        found = lookup(value)
        if isinstance(found, str):
            rows = np.flatnonzero(codes == code)
            raise column.fail(int(rows[0]), found.replace("(…)", f"({len(rows)} such rows)"))
        ids[code] = found
    return ids[codes]


def read_numbers(column: LabelColumn) -> np.ndarray:
    """(n,) float32 values.

    Raises:
        RequestError: a missing value, NaN, infinity, what float32 cannot hold, or text that is no
            number; −1 in every row, as in official test data.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    refuse_nulls(column)
    values = column.values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    elif is_text(values.type) or pa.types.is_decimal(values.type):
        encoded = pc.dictionary_encode(values)
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        different = np.empty(len(encoded.dictionary), dtype=np.float64)
        for code, value in enumerate(encoded.dictionary.to_pylist()):
            cell = read_cell(value)
            if cell.number is None and not cell.missing:
                row = int(np.flatnonzero(codes == code)[0])
                raise column.fail(row, f"the label {value!r} is no number.{number_meant(cell)}")
            different[code] = np.nan if cell.number is None else float(cell.number)
        numbers = different[codes]
    else:
        raise column.fail(0, f"the label {values[0].as_py()!r} is no number.")
    with np.errstate(over="ignore"):
        found: np.ndarray = numbers.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        raise column.fail(
            int(bad[0]),
            f"the label is {values[int(bad[0])].as_py()}, not a finite number ({len(bad)} such "
            "rows). Remove these rows or give them a value.",
        )
    if len(found) > 1 and (found == -1).all():
        raise column.fail(0, "every label is -1, which marks hidden labels (official test data).")
    return found


def class_lookup(column: LabelColumn, labels: Sequence[str]) -> Callable[[Any], int | str]:
    """A function from a value as read to its class id, or to the reason why there is none."""
    exact = {name.strip(): place for place, name in enumerate(labels)}
    cells = [read_cell(name) for name in labels]
    by_number = {cell.number: place for place, cell in enumerate(cells) if cell.whole}
    numeric = any(cell.number is not None for cell in cells)
    listed = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
    declared = column.names
    if declared is not None and set(declared) != set(labels):
        raise RequestError(
            f"{column.where}: the data names its classes {', '.join(declared)}, but the task's "
            f"labels are {listed}. Write the names of the data into the task file."
        )

    def lookup(value: Any) -> int | str:
        cell = read_cell(value)
        if isinstance(value, str) and cell.text in exact:
            return exact[cell.text]
        if cell.missing:
            wrote = "" if value is None else f": the cell is {value!r}"
            return f"there is no label{wrote} (…). {MEND}"
        if cell.strange:
            return not_a_label(cell)
        if cell.truth is not None:
            if cell.text in exact:
                return exact[cell.text]
            if by_number:
                return by_number.get(Decimal(cell.truth), f"{value} is no label ({listed}).")
            return int(cell.truth) if len(labels) == 2 else f"{value} is no label ({listed})."
        if not cell.whole and cell.name in exact:
            return exact[cell.name]
        none = f"{value!r} is none of the labels ({listed})."
        if cell.number is None or not cell.whole:
            return none + twin_of(cell, labels)
        number = int(cell.number)
        if declared is not None and 0 <= number < len(declared):
            return exact[declared[number]]
        if cell.number in by_number:
            return by_number[cell.number]
        if number == -1:
            return HIDDEN
        if numeric:
            return none + twin_of(cell, labels)
        if 0 <= number < len(labels):
            return number
        return f"{value} is none of the labels: 0 to {len(labels) - 1} stand for {listed}."

    return lookup


def not_a_label(cell: Cell) -> str:
    """What is wrong with a cell of a type that no label has."""
    return (
        f"{cell.strange} ({cell.text}) where a label is expected: a name, a number, or, for kind "
        "multilabel, a list of names. Write one label per row, or a column of 0 and 1 per label; "
        "of an object, name one field: `label_column: label.name`."
    )


def refuse_nulls(column: LabelColumn) -> None:
    """Refuse a column in which rows hold nothing at all."""
    if not column.values.null_count:
        return
    import pyarrow.compute as pc

    empty = np.flatnonzero(pc.is_null(column.values).to_numpy())
    raise column.fail(int(empty[0]), f"there is no label ({len(empty)} such rows). {MEND}")


def is_text(kind: pa.DataType) -> bool:
    """Whether an arrow type is text."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether an arrow type is a list."""
    import pyarrow as pa

    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
