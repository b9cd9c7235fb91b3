"""Data that cannot be loaded: everything that is wrong with them, not only the first row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mtl.checks.findings import SHOWN, Example, Finding, share
from mtl.data.nested import column_names, no_text
from mtl.errors import RequestError
from mtl.tasks.kinds import KINDS
from mtl.tasks.label_cells import read_cell
from mtl.tasks.label_columns import label_column
from mtl.tasks.label_sets import listed_labels

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.data.raw_rows import RawRows


MOST_FAULTS = 12
"""Different values that are no label, each with its rows; a column of them needs no more."""


def diagnose(rows: RawRows) -> list[Finding]:
    """Unreadable files, missing columns, missing texts and labels that a task does not know.

    Splits whose labels are all hidden (−1, official test data) are nothing to complain about.
    """
    found: list[Finding] = []
    for split in rows.raw.splits:
        try:
            table = rows.table(split)
        except RequestError as error:
            found.append(Finding("unreadable", "problem", str(error).rstrip("."), split))
            continue
        found += _columns(rows, split, table)
    return found


def _columns(rows: RawRows, split: str, table: pa.Table) -> Iterator[Finding]:
    spec = rows.spec
    wanted = [*spec.columns, *spec.gold_columns, *spec.table_columns]
    missing = [name for name in dict.fromkeys(wanted) if name not in table.column_names]
    if missing:
        yield Finding(
            "missing-column",
            "problem",
            f"no column {', '.join(map(repr, missing))} in {split} of {rows.raw.where}, only "
            f"{', '.join(column_names(table))}; mend inputs or the label's columns in {spec.where}",
            split,
            len(table),
            len(table),
        )
    for name in spec.columns:
        if name in missing:
            continue
        fault = no_text(table.schema.field(name))
        if fault:
            text = f"column {name!r} of {split} of {rows.raw.where} holds {fault}; mend inputs in "
            text += str(spec.where)
            yield Finding("no-text", "problem", text, split, len(table), len(table))
            continue
        cells = table.column(name).to_pylist()
        empty = [row for row, value in enumerate(cells) if not str(value or "").strip()]
        if empty:
            alone = len(spec.columns) == 1
            yield Finding(
                "empty-text",
                "problem" if alone else "remark",
                f"{split}: {share(len(empty), len(table))} have no text "
                + ("at all" if alone else f"in column {name!r}"),
                split,
                len(empty),
                len(table),
                [Example(rows.place(split, row)) for row in empty[:SHOWN]],
            )
    if not {*spec.gold_columns} & {*missing} and len(table):
        yield from _labels(rows, split, table)


def _labels(rows: RawRows, split: str, table: pa.Table) -> Iterator[Finding]:
    """Every value of the label column that the task's kind refuses, with its rows."""
    import pyarrow as pa

    spec = rows.spec
    whole = label_column(table, spec.label_column, spec.label_form, "")
    values = whole.values

    def fault(column: pa.ChunkedArray) -> str | None:
        label = replace(whole, values=column, where="", line=lambda row: "")
        try:
            if spec.kind == "multilabel" and not spec.labels:  # whatever is a label is one of it
                listed_labels(label)
            else:
                KINDS.get(spec.kind).check_labels(spec, label)
        except RequestError as error:
            return str(error).lstrip(", :").rstrip(".")
        return None

    if fault(values) is None:
        return
    by_value: dict[str, list[int]] = {}
    items: dict[str, Any] = {}
    for row, value in enumerate(values.to_pylist()):
        key = json.dumps(value, default=str)
        by_value.setdefault(key, []).append(row)
        items.setdefault(key, value)
    if all(read_cell(value).name == "-1" for value in items.values()):
        return
    faulty = 0
    for key, places in by_value.items():
        why = fault(pa.chunked_array([pa.array([items[key]], type=values.type)]))
        if why is None:
            continue
        faulty += 1
        if faulty > MOST_FAULTS:
            text = f"{split}: further labels that are none, from {rows.place(split, places[0])} on"
            yield Finding("unknown-label", "problem", text, split, 0, len(table))
            return
        check = "no-label" if read_cell(items[key]).missing else "unknown-label"
        yield Finding(
            check,
            "problem",
            f"{share(len(places), len(table))} of {split}: {_alone(why)}",
            split,
            len(places),
            len(table),
            [Example(rows.place(split, row)) for row in places[:SHOWN]],
        )


def _alone(why: str) -> str:
    """What a reader says about one row, without its count of one."""
    return why.replace(" (1 such rows)", "")
