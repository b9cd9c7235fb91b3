"""What the order of the rows, and what they share, means for limits and hold-outs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mtl.checks.findings import SHOWN, Example, Finding, share
from mtl.tasks.yamls import catalog

if TYPE_CHECKING:
    from mtl.data.raw_rows import RawRows
    from mtl.data.task_data import Split, TaskData
    from mtl.tasks.spec import TaskSpec

HEAD = 100
"""So many first rows are looked at for the remark on a sorted file."""
LEAST = 20
"""A column with fewer different values names no groups; with fewer rows a split has no order."""
SHARED = 0.1
"""Share of held-out rows whose group stands in train from which a remark is made."""
_NAMES = re.compile(
    r"(^|[_ ])(user|author|writer|speaker|patient|customer|client|person|subject|worker|doc|docs|"
    r"document|article|page|source|site|thread|session|conversation|dialog|dialogue|story|book)"
    r"([_ ]?(id|name|no|nr|number))?$",
    re.IGNORECASE,
)
"""Columns, beside the texts, that by their names say where a row is from."""


def order_remarks(data: TaskData, rows: RawRows) -> Iterator[Finding]:
    """Splits that are sorted by label; held-out rows that share a text or a user with train."""
    for name, split in data.splits.items():
        yield from _sorted(data.spec, name, split)
    yield from _groups(data, rows)


def _sorted(spec: TaskSpec, name: str, split: Split) -> Iterator[Finding]:
    if spec.kind != "classification" or len(split) < LEAST:
        return
    labels = split.labels[np.argsort(split.rows, kind="stable")]
    shares = np.bincount(labels) / len(labels)
    changes = np.count_nonzero(labels[1:] != labels[:-1])
    expected = len(labels) * (1 - float((shares**2).sum()))  # in an order that knows no labels
    if expected < LEAST / 2 or changes > expected / 5:
        return
    head = labels[: min(HEAD, len(labels) // 2)]
    limit = "--max-train-samples" if name == "train" else "--max-eval-samples"
    yield Finding(
        "sorted-labels",
        "remark",
        f"{name}: rows are sorted by label, the first {len(head)} hold {len(np.unique(head))} of "
        f"{np.count_nonzero(shares)} labels; a limit takes rows of all of them with sample=drawn, "
        "which is the default of your own tasks: python -m mtl.train --task "
        f"{shlex.quote(_argument(spec))} {limit} {len(head)} --set sample=drawn",
        name,
        len(split),
        len(split),
    )


def _argument(spec: TaskSpec) -> str:
    return spec.id if spec.id in catalog().tasks or not spec.origin else str(spec.origin)


def _groups(data: TaskData, rows: RawRows) -> Iterator[Finding]:
    import pyarrow as pa
    import pyarrow.compute as pc

    spec, train = data.spec, data.splits["train"]
    if spec.kind == "candidates":
        return
    pool = rows.table(train.source)
    for column in pool.column_names:
        known = pool.column(column)
        grouped = column == spec.group_by
        told = column in spec.columns or _NAMES.search(column)
        if not (grouped or told) or column in spec.gold_columns or pa.types.is_nested(known.type):
            continue
        if pa.types.is_dictionary(known.type):
            known = known.cast(known.type.value_type)
        if not grouped and pc.count_distinct(known).as_py() < LEAST:
            continue
        seen = known.take(train.rows)
        for name, split in data.splits.items():
            held_out = split.source == train.source
            # of what was held out, group_by sees to it; files that are given are as they are
            if name == "train" or grouped == held_out or (spec.group_by and not grouped):
                continue
            table = rows.table(split.source)
            if column not in table.column_names:
                continue
            mine = table.column(column).take(split.rows)
            shared = np.flatnonzero(
                pc.is_in(mine.cast(seen.type), value_set=seen.combine_chunks()).to_numpy()
            )
            if not len(shared) or (len(shared) < SHARED * len(split) and not grouped):
                continue
            if grouped:
                advice = "which group_by cannot mend: it divides what is held out of train"
            else:
                advice = (
                    "so the result says nothing of new ones; to keep them apart, write "
                    f"`group_by: {column}` into the task file, or --group-by {shlex.quote(column)}"
                )
            yield Finding(
                "group-by",
                "remark",
                f"{name}: {share(len(shared), len(split))} have their {column!r} in train, too, "
                f"{advice}",
                name,
                len(shared),
                len(split),
                [
                    Example(
                        rows.place(split.source, int(split.rows[row])),
                        " ".join(str(mine[int(row)].as_py()).split())[:120],
                    )
                    for row in shared[:SHOWN]
                ],
            )
