"""Reading label columns: names or numbers to class ids, values, or sets of labels.

Everything that is not a label of the task is refused with the place where it stands. Rows are
counted from 0, as everywhere in the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class LabelColumn:
    """A label column with what messages need to say where it is.

    Attributes:
        values: as read: integers, floats, booleans, text, or lists of integers or text.
        names: the names of the classes if the data file declares them (an HF ``ClassLabel``).
        where: "task 'glue/rte', split 'train' of …, column 'label'".
        line: row → how the file is to be opened at it ("row 7", or "line 9 of a.csv").
    """

    values: pa.ChunkedArray
    names: tuple[str, ...] | None
    where: str
    line: Callable[[int], str]

    def fail(self, row: int, why: str) -> RequestError:
        """The error for what stands in ``row``."""
        return RequestError(f"{self.where}, {self.line(row)}: {why}")


def read_class_labels(column: LabelColumn, labels: Sequence[str]) -> np.ndarray:
    """(n,) int64 class ids.

    Text is looked up in ``labels``. Whole numbers are ids, unless the labels themselves are numbers
    (``labels: [1, 2, 3]``): then they are looked up, too. Where the data file declares names for
    its ids, these decide, and must be the task's.

    Raises:
        RequestError: a missing label, −1 (hidden), or one that is not in the list.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.values.combine_chunks()
    _refuse_nulls(column)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if _is_list(values.type):
        raise column.fail(0, f"a list of labels ({values[0].as_py()!r}) where one is expected.")
    encoded = pc.dictionary_encode(values)
    lookup = _class_lookup(column, labels)
    ids = np.empty(len(encoded.dictionary), dtype=np.int64)
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    for code, value in enumerate(encoded.dictionary.to_pylist()):
        found = lookup(value)
        if isinstance(found, str):
            raise column.fail(int(np.flatnonzero(codes == code)[0]), found)
        ids[code] = found
    return ids[codes]


def read_numbers(column: LabelColumn) -> np.ndarray:
    """(n,) float32 values.

    Raises:
        RequestError: a missing value, NaN, infinity, or text that is no number.
    """
    import pyarrow as pa

    _refuse_nulls(column)
    values = column.values.combine_chunks()
    if _is_text(values.type):
        numbers = np.empty(len(values), dtype=np.float64)
        for row, text in enumerate(values.to_pylist()):
            try:
                numbers[row] = float(text)
            except ValueError as error:
                raise column.fail(row, f"the label {text!r} is no number.") from error
    elif (
        pa.types.is_floating(values.type)
        or pa.types.is_integer(values.type)
        or pa.types.is_decimal(values.type)
    ):
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    else:
        raise column.fail(0, f"the label {values[0].as_py()!r} is no number.")
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise column.fail(
            int(bad[0]),
            f"the label is {numbers[bad[0]]}, not a finite number ({len(bad)} such rows). "
            "Remove these rows or give them a value.",
        )
    return numbers.astype(np.float32)


def listed_labels(column: LabelColumn) -> set[str]:
    """Every label that stands in a column of label lists.

    Raises:
        RequestError: a missing list, something else than a list, or an item that is no label.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    _refuse_nulls(column)
    values = column.values.combine_chunks()
    if not _is_list(values.type):
        raise column.fail(
            0, f"{values[0].as_py()!r} where a list of labels is expected (kind multilabel)."
        )
    inner = values.type.value_type
    if not (_is_text(inner) or pa.types.is_integer(inner) or pa.types.is_null(inner)):
        raise column.fail(0, f"a list of {inner} where a list of labels is expected.")
    items = pc.unique(pc.list_flatten(values))
    if items.null_count:
        raise column.fail(
            next(row for row, found in enumerate(values.to_pylist()) if None in found),
            "a label is missing.",
        )
    return {str(item).strip() for item in items.to_pylist()}


def read_label_sets(column: LabelColumn, labels: Sequence[str]) -> np.ndarray:
    """(n,C) float32 zeros and ones; an empty list is a row without any label.

    Raises:
        RequestError: something else than a list, or an item that is not in the list of labels.
    """
    _refuse_nulls(column)
    values = column.values.combine_chunks()
    if not _is_list(values.type):
        raise column.fail(
            0, f"{values[0].as_py()!r} where a list of labels is expected (kind multilabel)."
        )
    lookup = _class_lookup(column, labels)
    found = np.zeros((len(values), len(labels)), dtype=np.float32)
    for row, items in enumerate(values.to_pylist()):
        for item in items:
            place = lookup(item)
            if isinstance(place, str):
                raise column.fail(row, place)
            found[row, place] = 1.0
    return found


def _class_lookup(column: LabelColumn, labels: Sequence[str]) -> Callable[[Any], int | str]:
    """A function from a value as read to its class id, or to the reason why there is none."""
    ids = {name: place for place, name in enumerate(labels)}
    listed = ", ".join(labels[:12]) + (", …" if len(labels) > 12 else "")
    numeric = all(_is_whole(name) for name in labels)
    declared = column.names
    if declared is not None and set(declared) != set(labels):
        raise RequestError(
            f"{column.where}: the data names its classes {', '.join(declared)}, but the task's "
            f"labels are {listed}. Write the names of the data into the task file."
        )

    def lookup(value: Any) -> int | str:
        if value is None:
            return "a label is missing."
        if isinstance(value, bool):
            name = str(value).lower()
            return ids.get(name, int(value) if len(labels) == 2 else f"{value} is no label.")
        if isinstance(value, str):
            if value.strip() in ids:
                return ids[value.strip()]
            if not _is_whole(value.strip()):
                return f"{value!r} is none of the labels ({listed})."
            value = int(value)
        if isinstance(value, float):
            if not value.is_integer():
                return f"{value!r} is none of the labels ({listed})."
            value = int(value)
        if declared is not None and 0 <= value < len(declared):
            return ids[declared[value]]
        if numeric:
            named = {int(name): place for name, place in ids.items()}
            return named.get(value, f"{value} is none of the labels ({listed}).")
        if 0 <= value < len(labels):
            return int(value)
        if value == -1:
            return (
                "the label is -1, which marks hidden labels (official test data). Choose a "
                "protocol that does not use this split, such as scalearn."
            )
        return f"{value} is none of the labels: 0 to {len(labels) - 1} stand for {listed}."

    return lookup


def _refuse_nulls(column: LabelColumn) -> None:
    if not column.values.null_count:
        return
    import pyarrow.compute as pc

    empty = np.flatnonzero(pc.is_null(column.values).to_numpy())
    raise column.fail(
        int(empty[0]),
        f"there is no label ({len(empty)} such rows). Remove these rows or fill in the label.",
    )


def _is_whole(text: str) -> bool:
    return text.lstrip("+-").isdecimal() and text.isascii()


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
