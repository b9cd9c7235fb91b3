"""The data of a task: rows read, rendered by the templates, labels checked, split by a protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError
from mtl.files import sha256_json
from mtl.registry import Registry
from mtl.tasks.kinds import KINDS
from mtl.tasks.labels import LabelColumn
from mtl.tasks.layout import class_names
from mtl.tasks.protocols import PROTOCOLS, Part
from mtl.tasks.shots import draw_shots, one_class_note
from mtl.tasks.sources import RawData, open_data
from mtl.tasks.spec import TaskSpec, template_parts
from mtl.tasks.textfiles import LONGEST_TEXT, too_long

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

PREPARE: Registry[Callable[[pa.Table], pa.Table]] = Registry("row function")
"""Functions that reshape the rows of a task before the templates, where these are not enough."""

PREPARE.add("labelled", "mtl.tasks.rows:labelled")


@dataclass(frozen=True)
class Split:
    """The rows of one split, ready to be encoded.

    Attributes:
        texts: one list of n strings per template.
        labels: (n,) or (n,C), of the kind's dtype.
        source, rows: the official split that the rows are of, and their numbers there.
        table: further columns that decoding needs.
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
) -> TaskData:
    """Read the data of ``spec`` and split them by ``protocol``.

    Args:
        data_root: folder with local mirrors of Hub datasets; None reads from the Hub.
        max_train_samples, max_eval_samples: keep the first rows of a split only.
        max_dev_samples: likewise, of dev alone.
        shots: train on so many rows of the protocol's training part, 0 for all.
        shot_draw: see :func:`mtl.tasks.shots.draw_shots`.

    Raises:
        RequestError: data missing or damaged, a column missing, labels outside the list, a split
            that is empty, fewer training rows than shots, a training split with one class only
            (unless it was drawn so: the first 4 rows may all be of one class).
    """
    divide = PROTOCOLS.get(protocol)
    raw = open_data(spec, data_root)
    reader = _Reader(spec, raw)
    try:
        parts = dict(divide(spec, raw.splits, reader.labels))
    except RequestError as error:
        # Protocols know splits, not places; who reads the message wants to know which folder.
        if raw.where in str(error):
            raise
        raise RequestError(f"{error} Read from: {raw.where}.") from error
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
    else:
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
        self._spec, self._raw = spec, raw
        self._tables: dict[str, pa.Table] = {}
        self._labels: dict[str, np.ndarray] = {}

    def labels(self, source: str) -> np.ndarray:
        """All labels of an official split, checked."""
        if source not in self._labels:
            spec, table = self._spec, self._table(source)
            where = f"Task {spec.id!r}, split {source!r} of {self._raw.where}"
            self._need(table, source, [spec.label_column])
            if not len(table):
                raise RequestError(f"{where} is empty: there is nothing to train or test on.")
            column = LabelColumn(
                table.column(spec.label_column),
                class_names(table.schema.metadata, spec.label_column),
                f"{where}, column {spec.label_column!r}",
                lambda row: self._raw.line(source, row),
            )
            self._labels[source] = KINDS.get(spec.kind).check_labels(spec, column)
        return self._labels[source]

    def split(self, name: str, part: Part, limit: int | None) -> Split:
        """The rows of one part, rendered."""
        spec = self._spec
        labels = self.labels(part.source)
        rows = np.arange(len(labels)) if part.rows is None else part.rows
        rows = rows[:limit] if limit else rows
        if not len(rows):
            raise RequestError(
                f"Task {spec.id!r}: its {name} split is empty (protocol rows of "
                f"{part.source!r} in {self._raw.where}). Add rows or choose another --protocol."
            )
        table = self._table(part.source)
        self._need(table, part.source, list(spec.columns))
        table = table.select(list(spec.columns)).take(rows)
        texts = tuple(self._render(table, template, part.source, rows) for template in spec.inputs)
        return Split(texts, labels[rows], source=part.source, rows=rows)

    def _table(self, source: str) -> pa.Table:
        if source not in self._tables:
            if source not in self._raw.splits:
                raise RequestError(
                    f"Task {self._spec.id!r}: split {source!r} is missing in {self._raw.where}, "
                    f"which has {', '.join(self._raw.splits)}. Complete the data or choose "
                    "another --protocol."
                )
            table = self._raw.read(source)
            if self._spec.prepare:
                table = PREPARE.get(self._spec.prepare)(table)
            self._tables[source] = table
        return self._tables[source]

    def _need(self, table: pa.Table, source: str, columns: Sequence[str]) -> None:
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise RequestError(
                f"Task {self._spec.id!r}: split {source!r} of {self._raw.where} has no column "
                f"{', '.join(map(repr, missing))}; it has {', '.join(table.column_names)}. "
                f"Mend inputs or label_column in {self._spec.where}."
            )

    def _render(self, table: pa.Table, template: str, source: str, rows: np.ndarray) -> list[str]:
        parts = template_parts(template)
        columns = {}
        for name in {column for _, column in parts if column}:
            values = table.column(name).to_pylist()
            bad = next((i for i, value in enumerate(values) if value is None), None)
            if bad is not None:
                raise RequestError(
                    f"Task {self._spec.id!r}, column {name!r}, "
                    f"{self._raw.line(source, int(rows[bad]))}: there is no text."
                )
            columns[name] = [value if isinstance(value, str) else str(value) for value in values]
            long = next((i for i, v in enumerate(columns[name]) if len(v) > LONGEST_TEXT), None)
            if long is not None:
                place = self._raw.line(source, int(rows[long]))
                raise too_long(f"Task {self._spec.id!r}, column {name!r}, {place}")
        if len(parts) == 1 and parts[0][0] == "" and parts[0][1]:
            return columns[parts[0][1]]
        return [
            "".join(literal + (columns[name][row] if name else "") for literal, name in parts)
            for row in range(len(table))
        ]


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
        digest.update("".join(texts).encode("utf-8", "surrogatepass"))
    digest.update(np.ascontiguousarray(split.labels).tobytes())
    return digest.hexdigest()
