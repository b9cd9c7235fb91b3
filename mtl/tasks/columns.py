"""What the columns of somebody's files are: texts, labels, numbers, or neither.

Only used to write a first task file (``mtl.tasks new``). Nothing that trains or tests guesses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa

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
MOST_WHOLE_NUMBERS = 20
"""Whole numbers with more different values than this are a scale, not classes."""


@dataclass(frozen=True)
class Column:
    """A column over all rows of all files given.

    Attributes:
        values: as read; None where there is nothing.
        names: names of classes that the file itself declares, if any.
    """

    name: str
    values: Sequence[Any]
    names: tuple[str, ...] | None = None

    @cached_property
    def present(self) -> list[Any]:
        """The values that are there; text without surrounding space."""
        stripped = (value.strip() if isinstance(value, str) else value for value in self.values)
        return [value for value in stripped if value not in (None, "")]

    @cached_property
    def distinct(self) -> set[Any]:
        """Different values, of lists the different items."""
        if self.lists:
            return {item for value in self.present for item in value}
        return set(self.present)

    @cached_property
    def lists(self) -> bool:
        return bool(self.present) and all(isinstance(value, list) for value in self.present)

    @cached_property
    def numbers(self) -> list[float] | None:
        """The values as numbers, or None where one is none."""
        if self.lists:
            return None
        try:
            return [float(value) for value in self.present]
        except (TypeError, ValueError):
            return None

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return self.numbers is not None and all(number.is_integer() for number in self.numbers)

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


def read_columns(paths: Sequence[Path]) -> dict[str, Column]:
    """The columns that all files have, their rows one after the other.

    Raises:
        RequestError: unreadable, without rows, or the files share no column.
    """
    from mtl.tasks.layout import class_names
    from mtl.tasks.sources import read_file

    tables: list[pa.Table] = [read_file(path)[0] for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if not len(table):
            raise RequestError(f"{path} holds no rows, only names of columns.")
    first = tables[0]
    shared = [
        name for name in first.column_names if all(name in table.column_names for table in tables)
    ]
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
        )
        for name in shared
    }


def find_label(columns: Mapping[str, Column]) -> Column:
    """The column of the labels: by its name, else the last one with few different values.

    Raises:
        RequestError: none looks like it.
    """
    lower = {name.lower(): column for name, column in columns.items()}
    for name in LABEL_NAMES:
        if name in lower:
            return lower[name]
    for column in reversed(list(columns.values())):
        different = len(column.distinct)
        few = 2 <= different <= min(MOST_CLASSES, len(column.values) // 2)
        if few and column.words <= 3:
            return column
    raise RequestError(
        f"None of the columns {', '.join(columns)} looks like a label (a few different values, or "
        f"a name such as {', '.join(LABEL_NAMES[:4])}). Say which: --label COLUMN."
    )


def find_texts(columns: Mapping[str, Column], label: str) -> list[Column]:
    """One or two columns of text: a known pair, else those with the most words, in file order.

    Raises:
        RequestError: there is no text.
    """
    texts = {
        name.lower(): column
        for name, column in columns.items()
        if name != label and column.words > 0 and not column.counts_rows
    }
    for pair in PAIRS:
        if all(name in texts for name in pair):
            return [texts[name] for name in pair]
    most = sorted(texts.values(), key=lambda column: -column.words)[:2]
    # One word beside long texts is a name or a date; alone it may be what is to be judged.
    most = [column for column in most if column.words >= 2] or most[:1]
    if not most:
        raise RequestError(
            f"None of the columns {', '.join(columns)} looks like a text. Say which: --text COLUMN."
        )
    return [column for column in columns.values() if column in most]
