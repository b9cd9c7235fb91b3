"""The data of a task: rows read, rendered by the templates, labels checked, split by a protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from mtl.data.origins import RawData
from mtl.data.raw_rows import RawRows
from mtl.data.reading import Split, SplitReader
from mtl.data.sampling import draw, draw_whole, strata
from mtl.data.shots import draw_per_class, draw_shots, one_class_note
from mtl.errors import RequestError
from mtl.files import canonical_json, sha256_json
from mtl.tasks.protocols import PROTOCOLS, SEED, Part
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
        shots_per_class: how many of every class, 0 for all.
        sample: how limits took rows, ``first`` or ``drawn``.
        limited: whether a limit took some.
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
    shots_per_class: int = 0
    sample: str = "first"
    limited: bool = False


def load_data(
    spec: TaskSpec,
    *,
    data_root: str | Path | None = None,
    protocol: str = "scalearn",
    max_train_samples: int = 0,
    max_eval_samples: int = 0,
    max_dev_samples: int = 0,
    shots: int = 0,
    shots_per_class: int = 0,
    shot_draw: int = 0,
    sample: str = "first",
    check_classes: bool = True,
    rows: RawRows | None = None,
    gate: str = "",
) -> TaskData:
    """Read the data of ``spec`` and split them by ``protocol``.

    Args:
        data_root: folder with local mirrors of Hub datasets; None reads from the Hub.
        max_train_samples, max_eval_samples: keep so many rows of a split only, 0 for all.
        max_dev_samples: likewise, of dev alone.
        shots: train on so many rows of the protocol's training part, 0 for all.
        shots_per_class: likewise, so many of every class.
        sample: which rows that are: ``first``, or ``drawn`` by class (:mod:`mtl.data.sampling`).
        shot_draw: see :func:`mtl.data.shots.draw_shots`.
        check_classes: refuse training rows that are all of one class.
        rows: the source, where somebody has opened it already; ``data_root`` says nothing then.
        gate: a column whose values are the rows' groups (:attr:`Split.groups`); empty for none.

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
        by = f" Its rows are whole groups of {spec.group_by!r} (group_by)." if spec.group_by else ""
        raise RequestError(f"{error}{by} Read from: {raw.where}.") from error
    parts = {name: reader.whole(part) for name, part in parts.items()}
    notes = []
    for name, source in list((spec.test or {}).items())[1:]:
        if source in raw.splits:
            parts.setdefault(f"test_{name}", Part(source))  # unless the protocol cuts it, too
        else:
            notes.append(f"test_{name}: split {source} is absent in {_short(raw)}, skipped")
    drawn = sample != "first"
    few = bool(shots or shots_per_class)
    if few:
        parts["train"], said = _few(
            reader, parts["train"], shots, shots_per_class, shot_draw, drawn
        )
        notes += said
    limits = {"train": [max_train_samples], "dev": [max_eval_samples, max_dev_samples]}
    splits = {}
    limited = few
    for name, part in parts.items():
        limit = min(filter(None, limits.get(name, [max_eval_samples])), default=0)
        if limit and limit < len(reader.rows_of(part)):
            limited = True
            part, note = _cut(reader, part, limit, drawn)
            notes.append(f"{name}: {note}")
        split = reader.split(name, part)
        if gate:
            split = replace(split, groups=reader.groups(split.source, split.rows, gate))
        splits[name] = split
    if few:
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
        max_train_samples=max_train_samples,
        notes=tuple(notes),
        shots=shots,
        shot_draw=shot_draw if few else 0,
        shots_per_class=shots_per_class,
        sample=sample,
        limited=limited,
    )


def _few(
    reader: SplitReader, part: Part, shots: int, per_class: int, number: int, drawn: bool
) -> tuple[Part, list[str]]:
    """The shots of draw ``number`` out of the training part, and which they are, in words."""
    spec, pool = reader.spec, reader.rows_of(part)
    labels = reader.labels(part.source)[pool]
    if per_class:
        rows, said = draw_per_class(pool, labels, per_class, number, spec, first=not drawn)
        said = [f"train: {per_class} shots per class, draw {number}", *said]
    elif drawn and spec.kind == "candidates":
        rows = pool[draw_whole(_queries(reader, part), shots, number)]
        said = [f"train: {len(rows)} shots in whole queries, draw {number}"]
    else:
        rows = draw_shots(pool, shots, number, spec.id, strata(spec, labels) if drawn else None)
        said = [f"train: {shots} shots, draw {number}" + (", drawn by label" if drawn else "")]
    return Part(part.source, rows), said


def _queries(reader: SplitReader, part: Part) -> np.ndarray:
    return cast("np.ndarray", reader.unit_of_rows(part.source))[reader.rows_of(part)]


def _cut(reader: SplitReader, part: Part, limit: int, drawn: bool) -> tuple[Part, str]:
    """So many rows of a part, and which they are, in words."""
    rows = reader.rows_of(part)
    if not drawn:
        return Part(part.source, rows[:limit]), f"the first {limit} rows only"
    spec = reader.spec
    if spec.kind == "candidates":
        kept = draw_whole(_queries(reader, part), limit)
        how = "whole queries drawn"
    else:
        kept = draw(strata(spec, reader.labels(part.source)[rows]), limit)
        how = "drawn" if spec.kind == "span_extraction" else "drawn by label"
    return Part(part.source, rows[kept]), f"{len(kept)} of {len(rows)} rows, {how} (seed {SEED})"


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
        groups=whole.groups and [whole.groups[row] for row in rows],
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


def grouping_of(data: TaskData) -> str:
    """Hex sha256 of which row of which split is in which group."""
    return sha256_json({name: split.groups for name, split in data.splits.items()})
