"""From the rows of a source to a split: templates rendered, labels checked, faults named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.data.nested import column_names, no_text, with_fields
from mtl.data.separated import LONGEST_TEXT, too_long
from mtl.errors import RequestError, did_you_mean
from mtl.tasks.kinds import KINDS
from mtl.tasks.label_columns import LabelColumn, label_column
from mtl.tasks.label_sets import listed_labels
from mtl.tasks.protocols import Part
from mtl.tasks.spec import TaskSpec, template_parts

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.data.raw_rows import RawRows


@dataclass(frozen=True)
class Split:
    """The rows of one split, ready to be encoded.

    Attributes:
        texts: one list of n strings per template; equal texts may be one object.
        labels: (n,) or (n,C), of the kind's dtype.
        table: further columns that decoding and metrics need: numbers as arrays, lists as lists.
        source, rows: the official split that the rows are of, and their numbers there.
        groups: the value of each row in the column that gates go by (:meth:`SplitReader.groups`),
            None where nothing goes by one. No part of the fingerprint: texts and labels are the
            same with any of them.
    """

    texts: tuple[list[str], ...]
    labels: np.ndarray
    table: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    groups: list[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def blank(self) -> int:
        """How many rows have no text at all."""
        first, *others = self.texts
        rows = [row for row, text in enumerate(first) if not text.strip()]
        return sum(not any(texts[row].strip() for texts in others) for row in rows)


class SplitReader:
    """Labels and texts of the official splits, each read once.

    Attributes:
        spec: the task; with the labels of the data, once they were collected.
    """

    def __init__(self, spec: TaskSpec, rows: RawRows) -> None:
        self.spec, self._rows, self._raw = spec, rows, rows.raw
        self._labels: dict[str, np.ndarray] = {}
        self._units: dict[str, np.ndarray] = {}

    def labels(self, source: str) -> np.ndarray:
        """All labels of an official split, checked."""
        if source not in self._labels:
            column = self._label_column(source)
            self._labels[source] = KINDS.get(self.spec.kind).check_labels(self.spec, column)
        return self._labels[source]

    def units(self, source: str) -> np.ndarray:
        """What protocols divide: the labels, or one per unit of rows that stay together.

        A query's candidates do, as in the references, which split before they expand; and rows with
        one value of the task's ``group_by``. Such a unit has its most frequent class.
        """
        labels, codes = self.labels(source), self.unit_of_rows(source)
        if codes is None:
            return labels
        if self.spec.kind == "classification":
            classes = int(labels.max()) + 1
            counts = np.bincount(codes * classes + labels, minlength=(codes.max() + 1) * classes)
            return counts.reshape(-1, classes).argmax(1)
        return labels[np.unique(codes, return_index=True)[1]]

    def whole(self, part: Part) -> Part:
        """A part in terms of :meth:`units` as the same in terms of rows."""
        codes = self.unit_of_rows(part.source)
        if part.rows is None or codes is None:
            return part
        by_unit = np.argsort(codes, kind="stable")
        bounds = np.append(0, np.cumsum(np.bincount(codes)))
        rows = [by_unit[bounds[unit] : bounds[unit + 1]] for unit in part.rows]
        return Part(part.source, np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64))

    def unit_of_rows(self, source: str) -> np.ndarray | None:
        """The unit of every row, in order of their first rows; None where each row is its own."""
        candidates = self.spec.kind == "candidates"
        column = "group" if candidates else self.spec.group_by
        if column is None:
            return None
        if source not in self._units:
            table = self._table(source)
            self._need(table, source, [column])
            values = self._values(table, column, source, np.arange(len(table)))
            if not isinstance(values, np.ndarray):
                raise RequestError(
                    f"Task {self.spec.id!r}: group_by {column!r} of {self._raw.where} holds lists; "
                    "name a column of text or numbers."
                )
            _, first, codes = np.unique(values, return_index=True, return_inverse=True)
            if candidates and len(first) != 1 + np.count_nonzero(values[1:] != values[:-1]):
                raise RequestError(
                    f"Task {self.spec.id!r}, split {source!r} of {self._raw.where}: the rows of "
                    "one group must follow one another."
                )
            self._units[source] = np.argsort(np.argsort(first))[codes]
        return self._units[source]

    def collect_labels(self) -> tuple[str, ...]:
        """All labels that stand in any official split, sorted.

        One list for all splits: a label that a split lacks must not shift the others' places.
        """
        found: set[str] = set()
        for source in self._raw.splits:
            found.update(listed_labels(self._label_column(source)))
        if not found:
            raise RequestError(
                f"Task {self.spec.id!r}: column {self.spec.label_column!r} of {self._raw.where} "
                "holds no label at all. Mend the data, or list the task's labels."
            )
        return tuple(sorted(found))

    def _label_column(self, source: str) -> LabelColumn:
        spec, table = self.spec, self._table(source)
        where = f"Task {spec.id!r}, split {source!r} of {self._raw.where}"
        self._need(table, source, spec.gold_columns)
        if not len(table):
            raise RequestError(f"{where} is empty: there is nothing to train or test on.")
        return label_column(
            table, spec.label_column, spec.label_form, where, lambda row: self._line(source, row)
        )

    def split(self, name: str, part: Part) -> Split:
        """The rows of one part, rendered, with their labels."""
        labels, rows = self.labels(part.source), self.rows_of(part)
        if not len(rows):
            raise RequestError(
                f"Task {self.spec.id!r}: its {name} split is empty (protocol rows of "
                f"{part.source!r} in {self._raw.where}). Add rows or choose another --protocol."
            )
        texts, extra = self.render(part.source, rows, self.spec.table_columns)
        return Split(texts, labels[rows], extra, source=part.source, rows=rows)

    def rows_of(self, part: Part) -> np.ndarray:
        """The numbers of a part's rows in its official split."""
        return np.arange(len(self.labels(part.source))) if part.rows is None else part.rows

    def render(
        self, source: str, rows: np.ndarray, beside: Sequence[str]
    ) -> tuple[tuple[list[str], ...], dict[str, Any]]:
        """Some rows of a split: their texts, one list per template, and the columns ``beside``."""
        table = self._table(source)
        columns = list(dict.fromkeys([*self.spec.columns, *beside]))
        self._need(table, source, columns)
        whole = len(rows) == len(table) and bool((rows == np.arange(len(rows))).all())
        table = table.select(columns)
        if not whole:
            table = table.take(rows)
        texts = tuple(self._render(table, template, source, rows) for template in self.spec.inputs)
        return texts, {column: self._values(table, column, source, rows) for column in beside}

    def groups(self, source: str, rows: np.ndarray, column: str) -> list[str]:
        """The group of some rows: their values in ``column`` as text, empty where there is none.

        A whole number is the same group as an integer or a float, as one reader or the other gives
        it.

        Raises:
            RequestError: there is no such column, it holds lists, or it is what is to be answered.
        """
        import pyarrow as pa

        table = with_fields(self._table(source), [column])
        if column not in table.column_names:
            known = column_names(table)
            raise RequestError(
                f"Task {self.spec.id!r}: the gate goes by the column {column!r}, and {source!r} of "
                f"{self._raw.where} has {', '.join(known)}.{did_you_mean(column, known)} A row "
                "without a value there, or with one that training did not see, is answered by the "
                "pooled gate, but the column has to be there."
            )
        if column in self.spec.gold_columns:
            raise RequestError(
                f"Task {self.spec.id!r}: the gate cannot go by the column {column!r}, which is the "
                "answer: new rows have none. Name a column that is known beforehand."
            )
        found = table.column(column)
        if pa.types.is_nested(found.type):
            raise RequestError(
                f"Task {self.spec.id!r}: the gate cannot go by the column {column!r}, which holds "
                "lists or fields; name a column of text or numbers."
            )
        return [_group(value) for value in _cells(found.take(rows))]

    def _table(self, source: str) -> pa.Table:
        if source not in self._raw.splits:
            raise RequestError(
                f"Task {self.spec.id!r}: split {source!r} is missing in {self._raw.where}, "
                f"which has {', '.join(self._raw.splits)}. Complete the data or choose "
                "another --protocol."
            )
        return self._rows.table(source)

    def _line(self, source: str, row: int) -> str:
        # A row function may change which rows there are; line numbers of the file would mislead.
        if self.spec.prepare:
            return f"row {row} as prepared by {self.spec.prepare!r}"
        return self._raw.line(source, row)

    def _need(self, table: pa.Table, source: str, columns: Sequence[str]) -> None:
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            known = column_names(table)
            raise RequestError(
                f"Task {self.spec.id!r}: split {source!r} of {self._raw.where} has no column "
                f"{', '.join(map(repr, missing))}; it has {', '.join(known)}."
                f"{did_you_mean(missing[0], known)} Mend inputs or the label's columns in "
                f"{self.spec.where}."
            )

    def _values(self, table: pa.Table, name: str, source: str, rows: np.ndarray) -> Any:
        """A column for decoding and metrics; text becomes its rank among the column's texts."""
        import pyarrow as pa

        column = table.column(name)
        if column.null_count:
            bad = column.to_pylist().index(None)
            raise RequestError(
                f"Task {self.spec.id!r}, column {name!r}, {self._line(source, int(rows[bad]))}: "
                "there is no value."
            )
        if pa.types.is_nested(column.type):
            return column.to_pylist()
        values = column.to_numpy()
        return np.unique(values, return_inverse=True)[1] if values.dtype == object else values

    def _render(self, table: pa.Table, template: str, source: str, rows: np.ndarray) -> list[str]:
        parts = template_parts(template)
        columns = {}
        for name in {column for _, column in parts if column}:
            fault = no_text(table.schema.field(name))
            if fault:
                raise RequestError(
                    f"Task {self.spec.id!r}, split {source!r} of {self._raw.where}: column "
                    f"{name!r} holds {fault}. Mend inputs in {self.spec.where}."
                )
            # no value is an empty text, as an empty cell of a CSV file is
            columns[name] = [
                value if isinstance(value, str) else "" if value is None else str(value)
                for value in _cells(table.column(name))
            ]
            long = next((i for i, v in enumerate(columns[name]) if len(v) > LONGEST_TEXT), None)
            if long is not None:
                place = self._line(source, int(rows[long]))
                raise too_long(f"Task {self.spec.id!r}, column {name!r}, {place}")
        if len(parts) == 1 and parts[0][0] == "" and parts[0][1]:
            return columns[parts[0][1]]
        return [
            "".join(literal + (columns[name][row] if name else "") for literal, name in parts)
            for row in range(len(table))
        ]


def _group(value: Any) -> str:
    if value is None or value != value:  # a number that is none, as pandas leaves it
        return ""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value).strip()


def _cells(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column; of a dictionary column each text is one object, however often."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return column.to_pylist()
    cells: list[Any] = []
    for chunk in column.chunks:
        texts = chunk.dictionary.to_pylist()
        cells += [None if code is None else texts[code] for code in chunk.indices.to_pylist()]
    return cells
