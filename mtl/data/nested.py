"""Fields of nested objects as columns: ``doc.text`` is the field ``text`` of the column ``doc``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def with_fields(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """The table, and beside its own columns those of ``names`` that are fields of objects.

    A column whose own name holds dots goes first; what is no field is left to the reader of the
    columns, who knows what it was wanted for.
    """
    for name in names:
        if name in table.column_names:
            continue
        column = _field(table, name)
        if column is not None:
            table = table.append_column(name, column)
    return table


def column_names(table: pa.Table) -> list[str]:
    """Names of the columns, of columns of objects those of their fields."""
    return [name for item in table.schema for name in _leaves(item)]


def no_text(item: pa.Field) -> str | None:
    """What a column holds that is no text, and what to do; None for text and numbers."""
    import pyarrow as pa

    if pa.types.is_struct(item.type):
        inner = ", ".join(repr(name) for name in _leaves(item) if name != item.name)
        return f"objects with the fields {inner}; name one of them" if inner else "empty objects"
    return "lists, not texts; join their items before" if pa.types.is_nested(item.type) else None


def _leaves(item: pa.Field) -> Iterator[str]:
    import pyarrow as pa

    if not pa.types.is_struct(item.type) or not item.type.num_fields:
        yield item.name
        return
    for inner in item.type:
        for name in _leaves(inner):
            yield f"{item.name}.{name}"


def _field(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = name.split(".")
    for cut in range(1, len(parts)):
        head, rest = ".".join(parts[:cut]), parts[cut:]
        if head not in table.column_names:
            continue
        column = table.column(head)
        for part in rest:
            kind = column.type
            if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
                return None
            column = pc.struct_field(column, part)
        return column
    return None
