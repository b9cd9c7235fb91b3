"""Reading sets of labels: lists of names, separated cells, vectors and columns of 0 and 1.

Which of them a column holds is what the task file says (``label_separator``, ``label_vectors``,
``label_columns``), never a guess: ``[1, 0]`` is two class numbers or a vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.tasks.label_cells import read_cell, read_list
from mtl.tasks.label_columns import MEND, class_lookup, not_a_label, refuse_nulls

if TYPE_CHECKING:
    from mtl.tasks.label_columns import LabelColumn


def listed_labels(column: LabelColumn) -> set[str]:
    """Every label that stands in a column of label lists or separated cells.

    Raises:
        RequestError: a missing list, something else than a list, 0/1 vectors, or an item that is
            no label.
    """
    refuse_nulls(column)
    found = set()
    for row, items in _rows(column):
        for item in items:
            cell = read_cell(item)
            if cell.missing:
                raise column.fail(row, "a label is missing.")
            if cell.strange or cell.truth is not None:
                raise column.fail(
                    row, not_a_label(cell) if cell.strange else f"{item} is no label."
                )
            if cell.number is not None and not cell.whole and not isinstance(item, str):
                raise column.fail(
                    row,
                    f"{item} in a list of labels: a fraction is the name of no label, and "
                    "probabilities are not read; write the names of the labels that hold.",
                )
            if column.names is not None and cell.whole and 0 <= int(cell.name) < len(column.names):
                found.add(column.names[int(cell.name)])
            else:
                found.add(cell.text)
    return found


def read_label_sets(column: LabelColumn, labels: Sequence[str]) -> np.ndarray:
    """(n,C) float32 zeros and ones; an empty list or cell is a row without any label.

    Raises:
        RequestError: another form than the task file says, or an item that is not in the list of
            labels.
    """
    refuse_nulls(column)
    if column.form.indicators:
        return read_indicators(column, labels).astype(np.float32)
    lookup = class_lookup(column, labels)
    found = np.zeros((len(column.values), len(labels)), dtype=np.float32)
    for row, items in _rows(column):
        for item in items:
            place = lookup(item)
            if isinstance(place, str):
                missing = read_cell(item).missing
                raise column.fail(row, "a label is missing." if missing else place)
            found[row, place] = 1.0
    return found


def read_indicators(column: LabelColumn, labels: Sequence[str]) -> np.ndarray:
    """(n,C) bool: which labels a row of 0 and 1 has; also true and false, 0.0 and 1.0.

    Raises:
        RequestError: a vector of another length, a cell that is missing, −1, or neither 0 nor 1.
    """
    refuse_nulls(column)
    found = np.zeros((len(column.values), len(labels)), dtype=bool)
    names = column.form.columns or tuple(f"place {place}" for place in range(len(labels)))
    for row, items in _vectors(column) if column.form.vectors else _side_by_side(column):
        if len(items) != len(labels):
            raise column.fail(
                row,
                f"a vector of {len(items)} where the task has {len(labels)} labels "
                f"({', '.join(labels[:12])}{', …' if len(labels) > 12 else ''}).",
            )
        for place, item in enumerate(items):
            cell = read_cell(item)
            if cell.on is None:
                raise column.fail(row, f"{names[place]}: {_neither(item)}")
            found[row, place] = cell.on
    return found


def are_vectors(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether lists can only be 0/1 vectors: all of one length, of 0 and 1, with repetitions.

    As class numbers, a list that holds 0 twice would be no set.
    """
    lengths = {len(items) for items in rows}
    if len(lengths) != 1 or lengths < {2} or min(lengths) < 2:
        return False
    cells = [[read_cell(item) for item in items] for items in rows]
    if not all(cell.on is not None for row in cells for cell in row):
        return False
    if not all(cell.truth is not None or cell.number is not None for row in cells for cell in row):
        return False  # the words true and false may be names
    return len(rows) > 1 or len({cell.on for cell in cells[0]}) < len(cells[0])


def _neither(item: Any) -> str:
    cell = read_cell(item)
    if cell.missing:
        return f"neither 0 nor 1 stands there. {MEND}"
    if cell.whole and cell.name == "-1":
        return "-1, which marks rows without (public) labels. Remove these rows."
    more = ""
    if cell.number is not None and 0 < cell.number < 1:
        more = " Probabilities are not read: write 1 from the share on that you call a label."
    return f"{item!r} is neither 0 nor 1.{more}"


def _rows(column: LabelColumn) -> Iterator[tuple[int, Sequence[Any]]]:
    """The items of each row of a column of lists, of lists written as text, or separated."""
    separator = column.form.separator
    values = column.values.combine_chunks()
    if separator:
        for row, value in enumerate(values.to_pylist()):
            if not isinstance(value, str):
                raise column.fail(
                    row,
                    f"{value!r} where text is expected, its labels separated by {separator!r}.",
                )
            parts = (part.strip() for part in value.split(separator))
            yield row, [part for part in parts if part]
        return
    lists = [_list(column, row, value) for row, value in enumerate(values.to_pylist())]
    if are_vectors(lists):
        raise column.fail(
            0,
            f"{lists[0]!r} and all other rows are lists of {len(lists[0])} that hold 0 and 1 only. "
            "If they are vectors, write `label_vectors: true` into the task file and the "
            f"{len(lists[0])} names of their places as `labels`; if 0 and 1 are names of labels, "
            "write each name once per row.",
        )
    yield from enumerate(lists)


def _vectors(column: LabelColumn) -> Iterator[tuple[int, Sequence[Any]]]:
    values = column.values.combine_chunks()
    for row, value in enumerate(values.to_pylist()):
        yield row, _list(column, row, value)


def _side_by_side(column: LabelColumn) -> Iterator[tuple[int, Sequence[Any]]]:
    for row, value in enumerate(column.values.to_pylist()):
        yield row, [value[name] for name in column.form.columns]


def _list(column: LabelColumn, row: int, value: Any) -> list[Any]:
    if isinstance(value, str) and not value.strip():
        raise column.fail(row, f"there is no label; write [] for a row without any. {MEND}")
    items = read_list(value) if isinstance(value, str) else value
    if isinstance(items, list):
        if "..." in items:
            raise column.fail(
                row, f"{value!r} was shortened when it was written; write the whole list."
            )
        inner = next((item for item in items if isinstance(item, list | dict)), None)
        if inner is not None:
            raise column.fail(row, f"{inner!r} in a list of labels, where a name is expected.")
        return items
    advice = ""
    if isinstance(value, str) and not column.form.vectors:
        advice = (
            " Write a list, or say with `label_separator` what stands between the names of a cell."
        )
    expected = "list of 0 and 1" if column.form.vectors else "list of labels"
    raise column.fail(row, f"{value!r} where a {expected} is expected (kind multilabel).{advice}")
