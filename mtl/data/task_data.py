"""The data of a task: rows read, rendered by the templates, labels checked, split by a protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.data.nested import column_names, no_text
from mtl.data.origins import RawData, open_data
from mtl.data.separated import LONGEST_TEXT, too_long
from mtl.data.shots import draw_shots, one_class_note
from mtl.errors import RequestError, did_you_mean
from mtl.files import canonical_json, sha256_json
from mtl.tasks.kinds import KINDS
from mtl.tasks.label_columns import LabelColumn, label_column
from mtl.tasks.label_sets import listed_labels
from mtl.tasks.protocols import PROTOCOLS, Part
from mtl.tasks.row_functions import PREPARE
from mtl.tasks.spec import TaskSpec, template_parts

if TYPE_CHECKING:
    import pyarrow as pa

_TOGETHER = 4096  # texts hashed in one go: a million joined at once would be gigabytes


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


@dataclass(frozen=True)
class TaskData:
    """A task's data under a protocol.

    Attributes:
        spec: the task, with the labels of the data where its file lists none.
        splits: ``train``, ``dev``, ``test``, and ``test_<name>`` for further tests.
        fingerprint: sha256 over texts and labels of every split, in order: it changes if and only
            if what is trained or tested on changes.
        fingerprints: the same of each split alone.
        sizes: rows per split.
        max_train_samples: the limit that cut the training split, 0 for none.
        shots, shot_draw: how many rows were drawn for training, 0 for all, and the draw.
        notes: remarks for the manifest: absent secondary tests, limits.
    """

    spec: TaskSpec
    splits: Mapping[str, Split]
    protocol: str
    fingerprint: str
    fingerprints: Mapping[str, str]
    sizes: Mapping[str, int]
    max_train_samples: int = 0
    notes: tuple[str, ...] = ()
    shots: int = 0
    shot_draw: int = 0


def load_data(
    spec: TaskSpec,
    *,
    data_root: str | Path | None = None,
    protocol: str = "scalearn",
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    max_dev_samples: int | None = None,
    shots: int = 0,
    shot_draw: int = 0,
    check_classes: bool = True,
) -> TaskData:
    """Read the data of ``spec`` and split them by ``protocol``.

    Args:
        data_root: folder with local mirrors of Hub datasets; None reads from the Hub.
        max_train_samples, max_eval_samples: keep the first rows of a split only.
        max_dev_samples: likewise, of dev alone.
        shots: train on so many rows of the protocol's training part, 0 for all.
        shot_draw: see :func:`mtl.data.shots.draw_shots`.
        check_classes: refuse training rows that are all of one class.

    Raises:
        RequestError: data missing or damaged, a column missing, labels outside the list, a split
            that is empty, fewer training rows than shots, a training split with one class only
            (unless it was drawn so: the first 4 rows may all be of one class).
    """
    divide = PROTOCOLS.get(protocol)
    raw = open_data(spec, data_root)
    reader = _Reader(spec, raw)
    if not spec.labels and spec.kind == "multilabel":
        spec = replace(spec, labels=reader.collect_labels())
        reader.spec = spec
    try:
        parts = dict(divide(spec, raw.splits, reader.units))
    except RequestError as error:
        # Protocols know splits, not places; who reads the message wants to know which folder.
        if raw.where in str(error):
            raise
        raise RequestError(f"{error} Read from: {raw.where}.") from error
    parts = {name: reader.whole(part) for name, part in parts.items()}
    notes = []
    for name, source in list((spec.test or {}).items())[1:]:
        if source in raw.splits:
            parts.setdefault(f"test_{name}", Part(source))  # unless the protocol cuts it, too
        else:
            notes.append(f"test_{name}: split {source} is absent in {_short(raw)}, skipped")
    if shots:
        part = parts["train"]
        pool = np.arange(len(reader.labels(part.source))) if part.rows is None else part.rows
        parts["train"] = Part(part.source, draw_shots(pool, shots, shot_draw, spec.id))
    splits = {}
    for name, part in parts.items():
        limits = {"train": (max_train_samples,), "dev": (max_eval_samples, max_dev_samples)}
        limit = min(filter(None, limits.get(name, (max_eval_samples,))), default=None)
        splits[name] = reader.split(name, part, limit)
        rows = len(reader.labels(part.source) if part.rows is None else part.rows)
        if len(splits[name]) < rows:
            notes.append(f"{name}: the first {limit} rows only")
    if shots:
        notes.append(f"train: {shots} shots, draw {shot_draw}")
        notes += one_class_note(spec, splits["train"])
    elif check_classes:
        _check_classes(spec, splits["train"], raw.where)
    fingerprints = {name: _fingerprint(split) for name, split in splits.items()}
    return TaskData(
        spec=spec,
        splits=splits,
        protocol=protocol,
        fingerprint=sha256_json(fingerprints),
        fingerprints=fingerprints,
        sizes={name: len(split) for name, split in splits.items()},
        max_train_samples=max_train_samples or 0,
        notes=tuple(notes),
        shots=shots,
        shot_draw=shot_draw if shots else 0,
    )


def _short(raw: RawData) -> str:
    # A manifest travels; a path of the machine that made it says nothing elsewhere.
    return "the local mirror" if "/" in raw.where and Path(raw.where).exists() else raw.where


class _Reader:
    """Reads each official split once."""

    def __init__(self, spec: TaskSpec, raw: RawData) -> None:
        self.spec, self._raw = spec, raw
        self._tables: dict[str, pa.Table] = {}
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
        """The rows of one part, rendered."""
        spec = self.spec
        labels = self.labels(part.source)
        rows = np.arange(len(labels)) if part.rows is None else part.rows
        rows = rows[:limit] if limit else rows
        if not len(rows):
            raise RequestError(
                f"Task {spec.id!r}: its {name} split is empty (protocol rows of "
                f"{part.source!r} in {self._raw.where}). Add rows or choose another --protocol."
            )
        table = self._table(part.source)
        columns = list(dict.fromkeys([*spec.columns, *spec.table_columns]))
        self._need(table, part.source, columns)
        table = table.select(columns)
        if part.rows is not None or len(rows) < len(table):
            table = table.take(rows)
        texts = tuple(self._render(table, template, part.source, rows) for template in spec.inputs)
        extra = {
            column: self._values(table, column, part.source, rows) for column in spec.table_columns
        }
        return Split(texts, labels[rows], extra, source=part.source, rows=rows)

    def _table(self, source: str) -> pa.Table:
        if source not in self._tables:
            if source not in self._raw.splits:
                raise RequestError(
                    f"Task {self.spec.id!r}: split {source!r} is missing in {self._raw.where}, "
                    f"which has {', '.join(self._raw.splits)}. Complete the data or choose "
                    "another --protocol."
                )
            table = self._raw.read(source)
            if self.spec.prepare:
                prepare = PREPARE.get(self.spec.prepare)
                try:
                    table = prepare(table)
                except RequestError as error:
                    raise RequestError(
                        f"Task {self.spec.id!r}, split {source!r} of {self._raw.where}, prepare "
                        f"{self.spec.prepare!r}: {error}"
                    ) from error
            self._tables[source] = table
        return self._tables[source]

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


def _check_classes(spec: TaskSpec, train: Split, where: str) -> None:
    if spec.kind == "classification" and len(np.unique(train.labels)) < 2:
        only = spec.labels[int(train.labels[0])]
        raise RequestError(
            f"Task {spec.id!r}: all {len(train)} training rows of {where} have the label {only!r}; "
            "a classifier needs at least two classes. Use more rows, or mend the labels."
        )


def _fingerprint(split: Split) -> str:
    digest = hashlib.sha256()
    digest.update(f"{len(split)} rows, {len(split.texts)} texts".encode())
    for texts in split.texts:
        # Lengths first, so that moving a boundary between two rows changes the hash.
        lengths = np.fromiter((len(text) for text in texts), np.int64, len(texts))
        digest.update(lengths.tobytes())
        for start in range(0, len(texts), _TOGETHER):
            piece = "".join(texts[start : start + _TOGETHER])
            digest.update(piece.encode("utf-8", "surrogatepass"))
    digest.update(np.ascontiguousarray(split.labels).tobytes())
    for name, values in split.table.items():
        digest.update(name.encode())
        if isinstance(values, np.ndarray):
            digest.update(np.ascontiguousarray(values).tobytes())
        else:
            digest.update(canonical_json(values).encode())
    return digest.hexdigest()
