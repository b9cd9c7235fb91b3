"""Rows without labels, which are to be answered: rendered by the task's templates as all are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mtl.data.nested import with_fields
from mtl.data.origins import RawData
from mtl.data.raw_rows import RawRows
from mtl.data.reading import Split, SplitReader
from mtl.data.task_data import TaskData, fingerprint_of
from mtl.errors import RequestError
from mtl.tasks.kinds import KINDS

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.tasks.spec import TaskSpec

NEW = "new"
"""The one split of such data."""


def new_rows(
    spec: TaskSpec,
    table: pa.Table,
    where: str = "the rows given",
    line: Callable[[int], str] = "row {}".format,
    gate: str = "",
) -> TaskData:
    """The rows of ``table`` as data of ``spec`` with the one split :data:`NEW`; labels are zeros.

    Columns of labels may be there or not; they are not read. The task's row function runs in the
    form that needs no labels (:data:`mtl.tasks.row_functions.UNLABELLED`).

    Args:
        where, line: where the rows are from, and where one of them stands, for messages.
        gate: the column of the rows' groups, where the answers depend on it; empty for none.

    Raises:
        RequestError: a column of the templates is missing or holds no text; names it and the row.
    """
    kind = KINDS.get(spec.kind)
    wanted = [*spec.columns, *kind.needs, *([gate] if gate else ())]
    raw = RawData((NEW,), lambda split: with_fields(table, wanted), where, lambda _, row: line(row))
    source = RawRows(spec, raw=raw, labelled=False)
    rows = np.arange(source.table(NEW).num_rows)
    if not len(rows):
        raise RequestError(f"Task {spec.id!r}: {where} hold no row; there is nothing to answer.")
    reader = SplitReader(spec, source)
    texts, extra = reader.render(NEW, rows, kind.needs)
    groups = reader.groups(NEW, rows, gate) if gate else None
    shape = {"multilabel": (len(rows), len(spec.labels)), "span_extraction": (len(rows), 2)}
    labels = np.zeros(shape.get(spec.kind, (len(rows),)), dtype=kind.label_dtype)
    split = Split(texts, labels, extra, source=NEW, rows=rows, groups=groups)
    fingerprint = fingerprint_of(split)
    return TaskData(
        spec=spec,
        splits={NEW: split},
        protocol=NEW,
        fingerprint=fingerprint,
        fingerprints={NEW: fingerprint},
        sizes={NEW: len(rows)},
    )
