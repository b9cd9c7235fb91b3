"""What the columns of somebody's files are: texts, labels, numbers, or neither.

Only used to write a first task file (``mtl.tasks new``). Nothing that trains or tests guesses.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError
from mtl.tasks.label_cells import read_cell, read_list

if TYPE_CHECKING:
    import pyarrow as pa

    from mtl.tasks.dialect import Dialect

LABEL_NAMES = (
    *("label", "labels", "gold_label", "gold", "target", "class", "category", "tag", "tags", "y"),
    *("answer", "sentiment", "emotion", "stance", "intent", "topic", "similarity", "relatedness"),
    *("score", "rating", "stars"),
)
"""Names under which labels usually stand, the likeliest first."""

PAIRS = (
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("sentence_a", "sentence_b")),
    *(("question1", "question2"), ("text1", "text2"), ("text_a", "text_b"), ("s1", "s2")),
    *(("question", "passage"), ("question", "context"), ("question", "sentence")),
    *(("query", "document"), ("query", "passage"), ("title", "text"), ("title", "body")),
    *(("headline", "body"), ("a", "b")),
)
"""Columns that belong together as a pair of texts."""

MOST_CLASSES = 200


@dataclass(frozen=True)
class Column:
    """A column over all rows of all files given.

    Attributes:
        values: as read; None where there is nothing.
        names: names of classes that the file itself declares, if any.
        place: row → "line 7 of a.csv".
        sizes: how many of the rows are of each file.
    """

    name: str
    values: Sequence[Any]
    names: tuple[str, ...] | None = None
    place: Callable[[int], str] = lambda row: f"row {row}"
    sizes: tuple[int, ...] = ()

    @cached_property
    def present(self) -> list[Any]:
        """The values that are there; text without surrounding space."""
        return [
            value.strip() if isinstance(value, str) else value
            for value in self.values
            if not read_cell(value).missing
        ]

    @cached_property
    def distinct(self) -> set[Any]:
        """Different values, of lists the different items."""
        values = [item for value in self.sets for item in value] if self.sets else self.present
        # Objects and lists cannot stand in a set; what they look like can.
        return {repr(value) if isinstance(value, dict | list) else value for value in values}

    @cached_property
    def sets(self) -> list[list[Any]] | None:
        """The values as lists, also of lists that were written as text; None where one is none."""
        found = []
        for value in self.present:
            items = read_list(value) if isinstance(value, str) and value[0] == "[" else value
            if not isinstance(items, list):
                return None
            found.append(items)
        return found or None

    @cached_property
    def numbers(self) -> list[float] | None:
        """The values as numbers, or None where one is none."""
        found = []
        for value in self.present:
            cell = read_cell(value)
            if cell.number is None and cell.truth is None:
                return None
            found.append(float(cell.number if cell.number is not None else bool(cell.truth)))
        return found

    @cached_property
    def flags(self) -> bool:
        """Whether every row holds 0 or 1 (or truth values): a label that holds or does not."""
        if len(self.present) < len(self.values) or not self.present or self.sets:
            return False
        return all(read_cell(value).on is not None for value in self.distinct)

    @cached_property
    def words(self) -> float:
        """Mean number of words; 0 for what is no text."""
        texts = [value for value in self.present if isinstance(value, str)]
        if not texts or len(texts) < len(self.present) or self.numbers is not None:
            return 0.0
        return sum(len(text.split()) for text in texts) / len(texts)

    @property
    def counts_rows(self) -> bool:
        """Whether it looks like a number or a name of the row: all different, one word."""
        return len(self.distinct) == len(self.values) > 1 and self.words <= 1


def refuse_names(gold: Column) -> None:
    """Refuse names where a regression needs numbers; a few among numbers are faults of their rows.

    Raises:
        RequestError: says some of the names.
    """
    cells = {cell.name: cell for cell in map(read_cell, gold.present)}
    names = sorted(cell.text for cell in cells.values() if cell.number is None)
    if 2 * len(names) > len(cells):
        more = ", …" if len(names) > 3 else ""
        raise RequestError(
            f"--kind regression needs numbers, and column {gold.name!r} holds names: "
            f"{', '.join(map(repr, names[:3]))}{more} ({len(names)} of {len(cells)} different "
            "values). Leave --kind out to have them as classes, or name another column with "
            "--label."
        )


def read_columns(paths: Sequence[Path], dialect: Dialect | None = None) -> dict[str, Column]:
    """The columns that all files have, their rows one after the other.

    Of a column of objects, the fields are columns (``doc.text``).

    Raises:
        RequestError: unreadable, without rows, or the files share no column.
    """
    from mtl.data.nested import column_names, with_fields
    from mtl.data.origins import read_file
    from mtl.tasks.label_columns import class_names

    read = [read_file(path, dialect) for path in paths]
    tables: list[pa.Table] = [with_fields(table, column_names(table)) for table, _ in read]
    places = [
        f"line {lines[row]} of {path}" if lines else f"row {row} of {path}"
        for path, (table, lines) in zip(paths, read, strict=True)
        for row in range(len(table))
    ]
    for path, table in zip(paths, tables, strict=True):
        if not len(table):
            raise RequestError(f"{path} holds no rows, only names of columns.")
    first = tables[0]
    shared = [name for name in column_names(first) if all(name in t.column_names for t in tables)]
    if not shared:
        listed = "; ".join(
            f"{path}: {', '.join(table.column_names)}"
            for path, table in zip(paths, tables, strict=True)
        )
        raise RequestError(f"The files have no column in common ({listed}).")
    return {
        name: Column(
            name,
            [value for table in tables for value in table.column(name).to_pylist()],
            class_names(first.schema.metadata, name),
            places.__getitem__,
            tuple(map(len, tables)),
        )
        for name in shared
    }


def find_label(columns: Mapping[str, Column]) -> list[Column]:
    """The column of the labels: by its name, else the last one with few different values.

    Where no name says it and several columns hold nothing but 0 and 1, these together: each is one
    label of a set.

    Raises:
        RequestError: none looks like it, or it may be one column or several.
    """
    for name in LABEL_NAMES:
        found = [column for other, column in columns.items() if other.lower() == name]
        exact = [column for column in found if column.name == name]
        if len(found) > 1 and not exact:
            listed = " and ".join(column.name for column in found)
            raise RequestError(
                f"The columns {listed} differ in their case alone. Say which is the label: "
                f"--label {_typed(found[0].name)}."
            )
        if found:
            return (exact or found)[:1]
    few = [
        column
        for column in columns.values()
        if 2 <= len(column.distinct) <= min(MOST_CLASSES, len(column.values) // 2)
        and column.words <= 3
    ]
    flags = [column for column in columns.values() if column.flags]
    if len(flags) > 1:
        others = [column for column in few if not column.flags]
        if not others and (len(flags) > 2 or _numbered([column.name for column in flags])):
            return flags
        named = " ".join(_typed(column.name) for column in flags)
        varied = [column for column in flags if len(column.distinct) > 1]
        one = (others or varied or flags)[-1]
        raise RequestError(
            f"The columns {', '.join(repr(column.name) for column in flags)} hold nothing but 0 "
            "and 1. If each of them is a label that a row has or has not, say --label "
            f"{named}; if one column is the label, say which: --label {_typed(one.name)}."
        )
    if few:
        return [few[-1]]
    if len(columns) == 1:
        raise RequestError(
            f"The only column is {next(iter(columns))!r}; a task needs a column of texts and one "
            "of labels. Join the labels to the texts in one file."
        )
    raise RequestError(
        f"None of the columns {', '.join(map(repr, columns))} looks like the label: none is called "
        f"{', '.join(LABEL_NAMES[:4])} or the like, and none has few different values. Say which "
        "it is: --label COLUMN."
    )


def _numbered(names: Sequence[str]) -> bool:
    """Whether names are one name with numbers: y_0, y_1."""
    return len({name.rstrip("0123456789") for name in names}) == 1


def _typed(name: str) -> str:
    return shlex.quote(name)


def find_texts(columns: Mapping[str, Column], labels: Sequence[str]) -> list[Column]:
    """One or two columns of text: a known pair, else those with the most words, in file order.

    Raises:
        RequestError: there is no text.
    """
    texts = [
        column
        for name, column in columns.items()
        if name not in labels and column.words > 0 and not column.counts_rows
    ]
    # Of two that differ in their case, the one in lower case counts.
    named = {column.name.lower(): column for column in texts}
    named |= {column.name: column for column in texts}
    for pair in PAIRS:
        if all(name in named for name in pair):
            return [named[name] for name in pair]
    most = sorted(texts, key=lambda column: -column.words)[:2]
    # One word beside long texts is a name or a date; alone it may be what is to be judged.
    most = [column for column in most if column.words >= 2] or most[:1]
    if not most:
        raise RequestError(
            f"None of the columns {', '.join(map(repr, columns))} looks like a text. Say which: "
            "--text COLUMN."
        )
    return [column for column in columns.values() if column in most]
