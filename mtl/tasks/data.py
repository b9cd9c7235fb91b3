"""The data of a task: rows read, rendered to texts and labels, and split by a protocol."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtl.errors import RequestError
from mtl.files import sha256_json
from mtl.registry import Registry
from mtl.tasks.kinds import KINDS
from mtl.tasks.labels import LabelColumn
from mtl.tasks.protocols import PROTOCOLS, Part, default_protocol
from mtl.tasks.sources import RawSplit, Source, open_source
from mtl.tasks.spec import TaskSpec, template_parts

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

PREPARE: Registry[Callable[["pa.Table"], "pa.Table"]] = Registry("prepare function")
"""Functions from the rows as read to the rows that templates and labels are taken from."""

TEXTS = ("text", "text_pair")
"""Columns of a loaded split that hold the rendered templates."""


@dataclass(frozen=True, eq=False)
class TaskData:
    """The splits of a task, ready to be encoded.

    Attributes:
        spec: the task.
        splits: "train", "dev", "test" and secondary tests "test_<key>" → rows with the columns
            ``text``, ``text_pair`` (if there are two templates) and ``label``.
        protocol: how the official splits were used.
        fingerprint: sha256 over texts, labels and row numbers of all splits, in order; it changes
            if and only if they do, and is the same on every machine.
        digests: split → sha256 of its texts and labels.
        sizes: split → number of rows.
        notes: what a reader of results should know: absent secondary splits, empty texts.
    """

    spec: TaskSpec
    splits: Mapping[str, datasets.Dataset]
    protocol: str
    fingerprint: str
    digests: Mapping[str, str]
    sizes: Mapping[str, int]
    notes: tuple[str, ...] = ()


def load_data(
    spec: TaskSpec,
    *,
    data_root: str | Path | None = None,
    protocol: str | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
) -> TaskData:
    """Read a task's data and split it.

    Args:
        spec: the task.
        data_root: folder of local mirrors, ``<data_root>/<repo>/``; default ``MTL_DATA_ROOT``.
        protocol: a name in :data:`mtl.tasks.PROTOCOLS`; default
            :func:`mtl.tasks.default_protocol`. Demo tasks only know ``official``.
        max_train_samples: keep the first rows of the training part only (None or 0: all).
        max_eval_samples: likewise for dev and every test part.

    Raises:
        RequestError: data that cannot be found or read, a missing split or column, an empty split,
            a label outside of the task's list, a training part of one class.
    """
    protocol = protocol or default_protocol(spec)
    rule = PROTOCOLS.get(protocol)
    if "demo" in spec.data and protocol != "official":
        raise RequestError(
            f"Demo tasks bring their own train, dev and test rows: {spec.id!r} cannot be split by "
            f"the protocol {protocol!r}. Use 'official', or leave the protocol out."
        )
    for name, limit in (
        ("max_train_samples", max_train_samples),
        ("max_eval_samples", max_eval_samples),
    ):
        if limit is not None and limit < 0:
            raise RequestError(f"{name}={limit} must not be negative.")
    root = data_root or os.environ.get("MTL_DATA_ROOT") or None
    source = open_source(spec, Path(root).expanduser() if root else None)
    official = _Official(spec, source)
    parts = rule(spec, official)
    notes: list[str] = []
    splits, digests, chosen = {}, {}, {}
    for name, part in parts.items():
        if name.startswith("test_") and part.split not in source.splits:
            notes.append(f"{name}: {part.split} is absent, skipped")
            continue
        if name == "train":
            _check_classes(spec, official, part)
        limit = max_train_samples if name == "train" else max_eval_samples
        rows = _limited(part, len(official.labels(part.split)), limit)
        table = official.table(part.split)
        table = table if rows is None else table.take(rows)
        digests[name] = _digest(table)
        chosen[name] = part.split, "all" if rows is None else _hash(rows.astype("<i8").tobytes())
        splits[name] = _dataset(table, spec, digests[name])
        notes += [f"{name}: {note}" for note in _empty_texts(table)]
    return TaskData(
        spec=spec,
        splits=splits,
        protocol=protocol,
        fingerprint=sha256_json({name: [digests[name], *chosen[name]] for name in splits}),
        digests=digests,
        sizes={name: len(split) for name, split in splits.items()},
        notes=tuple(notes),
    )


@dataclass
class _Official:
    """Official splits, read once each, as tables of the columns text, text_pair, label."""

    spec: TaskSpec
    source: Source
    _read: dict[str, tuple[pa.Table, np.ndarray]] = field(default_factory=dict)

    def available(self) -> list[str]:
        return list(self.source.splits)

    def labels(self, split: str) -> np.ndarray:
        return self._get(split)[1]

    def table(self, split: str) -> pa.Table:
        return self._get(split)[0]

    def _get(self, split: str) -> tuple[pa.Table, np.ndarray]:
        if split not in self._read:
            if split not in self.source.splits:
                there = ", ".join(self.source.splits) or "none"
                raise RequestError(
                    f"Task {self.spec.id!r}: the split {split!r} is missing in "
                    f"{self.source.where}; there are: {there}."
                )
            self._read[split] = render(self.spec, split, self.source.splits[split]())
        return self._read[split]


def render(spec: TaskSpec, split: str, raw: RawSplit) -> tuple[pa.Table, np.ndarray]:
    """Texts and labels of a split as it was read.

    Returns:
        A table with ``text``, ``text_pair`` (if there are two templates) and ``label``; and the
        labels as an array.

    Raises:
        RequestError: an empty split, a missing column, a column that is no text, bad labels.
    """
    import pyarrow as pa

    where = f"task {spec.id!r}, split {split!r} of {raw.where}"
    table = raw.table
    if not table.num_rows:
        raise RequestError(f"{where}: there are no rows.")
    line = raw.line
    if spec.prepare is not None:
        table = PREPARE.get(spec.prepare)(table)
        line = _prepared_row
    missing = [
        column for column in (*spec.columns, spec.label_column) if column not in table.column_names
    ]
    if missing:
        raise RequestError(
            f"{where}: there is no column {missing[0]!r}. The columns are: "
            f"{', '.join(table.column_names)}. Name them in `inputs` and `label_column` of the "
            "task file."
        )
    columns = {
        name: _fill(template, table, where)
        for name, template in zip(TEXTS, spec.inputs, strict=False)
    }
    column = LabelColumn(
        values=table[spec.label_column],
        names=raw.names.get(spec.label_column),
        where=f"{where}, column {spec.label_column!r}",
        line=line,
    )
    labels = KINDS.get(spec.kind).check_labels(spec, column)
    columns["label"] = (
        pa.array(labels)
        if labels.ndim == 1
        else pa.FixedSizeListArray.from_arrays(pa.array(labels.ravel()), labels.shape[1])
    )
    return pa.table(columns), labels


def _prepared_row(row: int) -> str:
    return f"row {row} after `prepare`"


def _fill(template: str, table: pa.Table, where: str) -> pa.ChunkedArray:
    """A template filled in for every row, computed on whole columns; no text is an empty text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    pieces = []
    for literal, name in template_parts(template):
        if literal:
            pieces.append(pa.scalar(literal, pa.large_string()))
        if name is None:
            continue
        values = table[name]
        if pa.types.is_dictionary(values.type):
            values = pc.cast(values, values.type.value_type)
        if pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
            raise RequestError(
                f"{where}: the column {name!r} holds {values.type}, and a template needs text."
            )
        pieces.append(pc.fill_null(pc.cast(values, pa.large_string()), ""))
    if len(pieces) == 1:
        return pieces[0]
    return pc.binary_join_element_wise(*pieces, pa.scalar("", pa.large_string()))


def _limited(part: Part, rows: int, limit: int | None) -> np.ndarray | None:
    if not limit or limit >= (rows if part.rows is None else len(part.rows)):
        return part.rows
    return np.arange(limit) if part.rows is None else part.rows[:limit]


def _check_classes(spec: TaskSpec, official: _Official, part: Part) -> None:
    labels = official.labels(part.split)
    labels = labels if part.rows is None else labels[part.rows]
    if (labels == labels[:1]).all():
        kind = KINDS.get(spec.kind)
        one = spec.labels[labels[0]] if kind.classes else labels[0].tolist()
        raise RequestError(
            f"Task {spec.id!r}: all {len(labels)} training rows have the label {one!r}, so there "
            f"is nothing to learn. Check the column {spec.label_column!r} of "
            f"{official.source.where}."
        )


def _empty_texts(table: pa.Table) -> list[str]:
    import pyarrow.compute as pc

    notes = []
    for name in table.column_names:
        if name in TEXTS:
            empty = pc.equal(pc.utf8_trim_whitespace(table[name]), "").to_numpy()
            if empty.any():
                count, first = int(empty.sum()), int(empty.argmax())
                notes.append(f"{count} rows have an empty {name}, the first is row {first}")
    return notes


def _dataset(table: pa.Table, spec: TaskSpec, digest: str) -> datasets.Dataset:
    import datasets

    features = {name: datasets.Value("large_string") for name in table.column_names}
    dtype = KINDS.get(spec.kind).label_dtype
    if KINDS.get(spec.kind).classes:
        features["label"] = datasets.ClassLabel(names=list(spec.labels))
    elif spec.kind == "multilabel":
        features["label"] = datasets.Sequence(datasets.Value(dtype), length=spec.num_outputs)
    else:
        features["label"] = datasets.Value(dtype)
    schema = datasets.Features(features).arrow_schema
    return datasets.Dataset(table.combine_chunks().cast(schema), fingerprint=digest[:16])


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest(table: pa.Table) -> str:
    """sha256 of a table's values: names, lengths and bytes of texts, bytes of labels.

    It is taken from the arrow buffers, so neither chunks nor offsets of the table matter.
    """
    import pyarrow as pa

    digest = hashlib.sha256()
    for name in table.column_names:
        values = table[name].combine_chunks()
        digest.update(f"{name}:{len(values)}:{values.type}:".encode())
        if pa.types.is_large_string(values.type):
            _, offsets, content = values.buffers()
            ends = np.frombuffer(offsets, "<i8")[values.offset : values.offset + len(values) + 1]
            digest.update(np.diff(ends).tobytes())
            if content is not None:
                digest.update(memoryview(content)[int(ends[0]) : int(ends[-1])])
        elif pa.types.is_fixed_size_list(values.type):
            digest.update(values.flatten().to_numpy(zero_copy_only=False).tobytes())
        else:
            digest.update(values.to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()
