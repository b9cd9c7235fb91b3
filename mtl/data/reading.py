"""From the rows of a source to a split: templates rendered, labels checked, faults named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.data.nested import column_names, no_text
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
    """

    texts: tuple[list[str], ...]
    labels: np.ndarray
    table: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.labels)


class SplitReader:
    """Labels and texts of the official splits, each read once.

    Attributes:
        spec: the task; with the labels of the data, once they were collected.
    """

    def __init__(self, spec: TaskSpec, rows: RawRows) -> None:
        self.spec, self._rows, self._raw = spec, rows, rows.raw
        self._labels: dict[str, np.ndarray] = {}

    def labels(self, source: str) -> np.ndarray:
        """All labels of an official split, checked."""
        if source not in self._labels:
            column = self._label_column(source)
            self._labels[source] = KINDS.get(self.spec.kind).check_labels(self.spec, column)
        return self._labels[source]

    def units(self, source: str) -> np.ndarray:
        """What protocols divide: the labels, or one per group where rows are candidates.

        A query's candidates stay together, as in the references, which split before they expand.
        """
        labels, groups = self.labels(source), self._groups(source)
        return labels if groups is None else labels[self._first_rows(source, groups)]

    def whole(self, part: Part) -> Part:
        """A part in terms of :meth:`units` as the same in terms of rows."""
        groups = self._groups(part.source)
        if part.rows is None or groups is None:
            return part
        bounds = np.append(self._first_rows(part.source, groups), len(groups))
        rows = [np.arange(bounds[unit], bounds[unit + 1]) for unit in part.rows]
        return Part(part.source, np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64))

    def _groups(self, source: str) -> np.ndarray | None:
        if self.spec.kind != "candidates":
            return None
        table = self._table(source)
        self._need(table, source, ["group"])
        return self._values(table, "group", source, np.arange(len(table)))

    def _first_rows(self, source: str, groups: np.ndarray) -> np.ndarray:
        changes = np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))
        if len(changes) != len(np.unique(groups)):
            raise RequestError(
                f"Task {self.spec.id!r}, split {source!r} of {self._raw.where}: the rows of one "
                "group must follow one another."
            )
        return changes

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

    def split(self, name: str, part: Part, limit: int | None) -> Split:
        """The rows of one part, rendered, with their labels."""
        labels = self.labels(part.source)
        rows = np.arange(len(labels)) if part.rows is None else part.rows
        rows = rows[:limit] if limit else rows
        if not len(rows):
            raise RequestError(
                f"Task {self.spec.id!r}: its {name} split is empty (protocol rows of "
                f"{part.source!r} in {self._raw.where}). Add rows or choose another --protocol."
            )
        texts, extra = self.render(part.source, rows, self.spec.table_columns)
        return Split(texts, labels[rows], extra, source=part.source, rows=rows)

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
            values = _cells(table.column(name))
            bad = next((i for i, value in enumerate(values) if value is None), None)
            if bad is not None:
                raise RequestError(
                    f"Task {self.spec.id!r}, column {name!r}, "
                    f"{self._line(source, int(rows[bad]))}: there is no text."
                )
            columns[name] = [value if isinstance(value, str) else str(value) for value in values]
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
