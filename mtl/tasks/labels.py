"""Reading label columns: names or numbers to class ids, or values; sets: ``label_sets.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtl.tasks.label_cells import read_cell
from mtl.tasks.label_columns import (
    LabelColumn,
    class_lookup,
    is_list,
    is_text,
    not_a_label,
    refuse_nulls,
)
from mtl.tasks.label_forms import number_meant
from mtl.tasks.label_sets import read_indicators

if TYPE_CHECKING:
    import pyarrow as pa


def read_class_labels(column: LabelColumn, labels: Sequence[str]) -> np.ndarray:
    """(n,) int64 class ids.

    A cell is the label that is written as it; else a number is the label of the same value, where
    labels are numbers; else, where none is, a whole number is a place in the list (0 is the first).
    Where the data file declares names for its ids, these decide, and must be the task's. Of rows of
    0 and 1 (``column.form``) the class is the place of the only 1.

    Raises:
        RequestError: a missing label, −1 (hidden), or one that is not in the list.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.form.indicators:
        ones = read_indicators(column, labels)
        several = np.flatnonzero(ones.sum(axis=1) != 1)
        if len(several):
            count = int(ones[several[0]].sum())
            raise column.fail(
                int(several[0]),
                f"{count} of the {len(labels)} labels are 1 ({len(several)} such rows), and a "
                "class is exactly one. For sets of labels write `kind: multilabel`.",
            )
        return ones.argmax(axis=1).astype(np.int64)
    refuse_nulls(column)
    values = column.values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if is_list(values.type):
        raise column.fail(0, f"a list of labels ({values[0].as_py()!r}) where one is expected.")
    if pa.types.is_nested(values.type):
        raise column.fail(0, not_a_label(read_cell(values[0].as_py())))
    encoded = pc.dictionary_encode(values)
    lookup = class_lookup(column, labels)
    ids = np.empty(len(encoded.dictionary), dtype=np.int64)
    codes = _as_numpy(encoded.indices)
    for code, value in enumerate(encoded.dictionary.to_pylist()):
        found = lookup(value)
        if isinstance(found, str):
            rows = np.flatnonzero(codes == code)
            raise column.fail(int(rows[0]), found.replace("(…)", f"({len(rows)} such rows)"))
        ids[code] = found
    return ids[codes]


def _as_numpy(array: pa.Array) -> np.ndarray:
    """Numbers without nulls; ``to_numpy`` of an array imports pandas, a third of a dry run."""
    return np.from_dlpack(array)


def read_numbers(column: LabelColumn) -> np.ndarray:
    """(n,) float32 values.

    Raises:
        RequestError: a missing value, NaN, infinity, what float32 cannot hold, or text that is no
            number; −1 in every row, as in official test data.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    refuse_nulls(column)
    values = column.values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
        numbers = _as_numpy(values.cast(pa.float64(), safe=False))
    elif is_text(values.type) or pa.types.is_decimal(values.type):
        encoded = pc.dictionary_encode(values)
        codes = _as_numpy(encoded.indices)
        different = np.empty(len(encoded.dictionary), dtype=np.float64)
        for code, value in enumerate(encoded.dictionary.to_pylist()):
            cell = read_cell(value)
            if cell.number is None and not cell.missing:
                row = int(np.flatnonzero(codes == code)[0])
                raise column.fail(row, f"the label {value!r} is no number.{number_meant(cell)}")
            different[code] = np.nan if cell.number is None else float(cell.number)
        numbers = different[codes]
    else:
        raise column.fail(0, f"the label {values[0].as_py()!r} is no number.")
    with np.errstate(over="ignore"):
        found: np.ndarray = numbers.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        raise column.fail(
            int(bad[0]),
            f"the label is {values[int(bad[0])].as_py()}, not a finite number ({len(bad)} such "
            "rows). Remove these rows or give them a value.",
        )
    if len(found) > 1 and (found == -1).all():
        raise column.fail(0, "every label is -1, which marks hidden labels (official test data).")
    return found
