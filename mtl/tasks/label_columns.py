"""A column of labels: which form its rows have, where it stands, and what a cell of it is.

What a single cell says is decided in one place, :func:`mtl.tasks.label_cells.read_cell`. Everything
that is not a label of the task is refused with the place where it stands. Rows are counted from 0,
as everywhere in the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError
from mtl.tasks.label_cells import Cell, read_cell
from mtl.tasks.label_forms import twin_of

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

    if form.columns:
        named = ", ".join(map(repr, form.columns))
        pieces = [table.column(column).combine_chunks() for column in form.columns]
        values = pa.chunked_array([pa.StructArray.from_arrays(pieces, names=list(form.columns))])
        return LabelColumn(values, None, f"{where}, columns {named}", line, form)
    names = class_names(table.schema.metadata, name)
    return LabelColumn(table.column(name), names, f"{where}, column {name!r}", line, form)


def class_names(metadata: dict[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """Names of classes that ``datasets`` left in the schema of a parquet file, if any.

    Of a list of class numbers they are those of its items.
    """
    import json

    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        if isinstance(feature, list):  # as older versions write a list
            (feature,) = feature
        elif feature["_type"] in {"Sequence", "List", "LargeList"}:
            feature = feature["feature"]
        if feature["_type"] != "ClassLabel":
            return None
        return tuple(str(name) for name in feature["names"])
    except (ValueError, KeyError, TypeError):
        return None  # not what `datasets` writes, so it declares nothing


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
