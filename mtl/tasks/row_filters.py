"""Row functions that choose among the rows of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def labelled(table: pa.Table) -> pa.Table:
    """The rows whose ``label`` is not −1: those on which the annotators agreed (SNLI).

    Missing labels stay, to be complained about with their rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if "label" not in table.column_names or not pa.types.is_integer(
        table.schema.field("label").type
    ):
        return table
    return table.filter(pc.fill_null(pc.not_equal(table.column("label"), -1), True))


def every_row(table: pa.Table) -> pa.Table:
    """The table as it is: new rows have no labels to be filtered by."""
    return table
