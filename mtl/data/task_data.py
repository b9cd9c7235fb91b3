"""The data of a task: rows read, rendered by the templates, labels checked, split by a protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mtl.data.origins import RawData
from mtl.data.raw_rows import RawRows
from mtl.data.reading import Split, SplitReader
from mtl.data.shots import draw_shots, one_class_note
from mtl.errors import RequestError
from mtl.files import canonical_json, sha256_json
from mtl.tasks.protocols import PROTOCOLS, Part
from mtl.tasks.spec import TaskSpec

_TOGETHER = 4096  # texts hashed in one go: a million joined at once would be gigabytes


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
    rows: RawRows | None = None,
) -> TaskData:
    """Read the data of ``spec`` and split them by ``protocol``.

    Args:
        data_root: folder with local mirrors of Hub datasets; None reads from the Hub.
        max_train_samples, max_eval_samples: keep the first rows of a split only.
        max_dev_samples: likewise, of dev alone.
        shots: train on so many rows of the protocol's training part, 0 for all.
        shot_draw: see :func:`mtl.data.shots.draw_shots`.
        check_classes: refuse training rows that are all of one class.
        rows: the source, where somebody has opened it already; ``data_root`` says nothing then.

    Raises:
        RequestError: data missing or damaged, a column missing, labels outside the list, a split
            that is empty, fewer training rows than shots, a training split with one class only
            (unless it was drawn so: the first 4 rows may all be of one class).
    """
    divide = PROTOCOLS.get(protocol)
    rows = rows or RawRows(spec, data_root)
    raw = rows.raw
    reader = SplitReader(spec, rows)
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
        size = len(reader.labels(part.source) if part.rows is None else part.rows)
        if len(splits[name]) < size:
            notes.append(f"{name}: the first {limit} rows only")
    if shots:
        notes.append(f"train: {shots} shots, draw {shot_draw}")
        notes += one_class_note(spec, splits["train"])
    elif check_classes:
        _check_classes(spec, splits["train"], raw.where)
    fingerprints = {name: fingerprint_of(split) for name, split in splits.items()}
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


def _check_classes(spec: TaskSpec, train: Split, where: str) -> None:
    if spec.kind == "classification" and len(np.unique(train.labels)) < 2:
        only = spec.labels[int(train.labels[0])]
        raise RequestError(
            f"Task {spec.id!r}: all {len(train)} training rows of {where} have the label {only!r}; "
            "a classifier needs at least two classes. Use more rows, or mend the labels."
        )


def rows_of(data: TaskData, split: str, rows: np.ndarray) -> TaskData:
    """Some rows of a split, as data with this split alone."""
    whole = data.splits[split]
    part = Split(
        tuple([texts[row] for row in rows] for texts in whole.texts),
        whole.labels[rows],
        {
            name: values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]
            for name, values in whole.table.items()
        },
        source=whole.source,
        rows=whole.rows[rows],
    )
    fingerprint = fingerprint_of(part)
    return replace(
        data,
        splits={split: part},
        fingerprint=fingerprint,
        fingerprints={split: fingerprint},
        sizes={split: len(rows)},
    )


def fingerprint_of(split: Split) -> str:
    """Hex sha256 over texts, labels and table of a split, in order."""
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
