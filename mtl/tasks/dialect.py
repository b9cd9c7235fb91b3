"""How a task's files are to be read, where their suffix does not say it: keys of ``data``.

Whatever ``mtl.tasks new`` finds out about a file stands in the task's YAML file, so that training
reads it exactly as the draft did::

    data:
      files: {train: a.csv}
      separator: ";"
      encoding: cp1252
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Any

from mtl.errors import unknown

SEPARATED = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
"""Suffixes of files whose cells stand between separators, with the usual one."""

LISTED = (".json", ".jsonl", ".ndjson")
"""Suffixes of files of JSON objects."""

QUOTING = ("double", "none")

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""Separators that are recognised, and how they are called."""

_WORDS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " "}


@dataclass(frozen=True)
class Dialect:
    """The keys of ``data`` beside ``files``. None is what the suffix says, or what is usual.

    Attributes:
        separator: one character between cells; None: a comma in .csv, a tab in .tsv and .txt.
        quoting: ``double``, cells may stand in double quotes and then hold separators and line
            breaks; ``none``, quotes are text and a line is a row (GLUE's own files). None is
            ``double``, but refuses rows that quotes swallowed.
        header: whether the first line names the columns; None: it does.
        columns: their names where ``header`` is false.
        encoding: a codec of Python; None: UTF-8.
        field: of a JSON file that holds one object, the key of the list of rows; dots go deeper.
    """

    separator: str | None = None
    quoting: str | None = None
    header: bool | None = None
    columns: tuple[str, ...] = ()
    encoding: str | None = None
    field: str | None = None

    @staticmethod
    def from_data(data: Mapping[str, Any], *, partly: bool = False) -> Dialect:
        """The dialect that a task's ``data`` describes.

        Args:
            partly: ``header`` and ``columns`` need not both be there; the other is found out.

        Raises:
            ValueError: a value that means nothing, or a key that none of the files heeds; the
                message goes on from "data …".
        """
        dialect = Dialect(**{name: data[name] for name in KEYS if name in data})
        dialect._check(partly)
        suffixes = {PurePath(str(name)).suffix.lower() for name in data["files"].values()}
        for kinds, names in (
            ((*SEPARATED,), ("separator", "quoting", "header", "columns")),
            ((*SEPARATED, *LISTED), ("encoding",)),
            (LISTED, ("field",)),
        ):
            idle = [name for name in names if name in data]
            if idle and not suffixes & {*kinds}:
                listed = ", ".join(kinds)
                raise ValueError(f"has the key {idle[0]!r}, which is for {listed} files alone")
        return Dialect(**{**dialect.__dict__, "columns": tuple(dialect.columns)})

    def to_data(self) -> dict[str, Any]:
        """The keys that say something, as they stand in ``data``."""
        said = {name: getattr(self, name) for name in KEYS}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in said.items()
            if value is not None and value != ()
        }

    def separates(self, suffix: str) -> str:
        """The separator in files of a suffix."""
        return self.separator or SEPARATED[suffix.lower()]

    def _check(self, partly: bool) -> None:
        if self.separator is not None and (
            not isinstance(self.separator, str)
            or len(self.separator) != 1
            or self.separator in '"\n\r\0'
        ):
            raise ValueError(f"has separator {self.separator!r}; it must be one character")
        if self.quoting is not None and self.quoting not in QUOTING:
            raise ValueError(str(unknown("quoting", str(self.quoting), QUOTING)).rstrip("."))
        if self.header is not None and not isinstance(self.header, bool):
            raise ValueError(f"has header {self.header!r}; it must be true or false")
        good = isinstance(self.columns, list | tuple) and all(
            isinstance(name, str) and name.strip() for name in self.columns
        )
        if not good or len({*self.columns}) != len(self.columns):
            raise ValueError(f"has columns {self.columns!r}; it must be a list of different names")
        if not partly and (self.header is False) != bool(self.columns):
            raise ValueError(
                "must have both or neither of `header: false` and `columns: [a name each]`"
            )
        if self.header is True and self.columns:
            raise ValueError("has columns, which name those of a file without header")
        if self.encoding is not None and not is_encoding(self.encoding):
            raise ValueError(f"has encoding {self.encoding!r}, which Python does not know")
        if self.field is not None and (not isinstance(self.field, str) or not self.field):
            raise ValueError(f"has field {self.field!r}, which is no name")


KEYS = tuple(item.name for item in fields(Dialect))
"""Keys that ``data`` may have beside ``files``."""


def separator_of(word: str) -> str:
    """A separator as people type it on a command line: itself, ``tab``, ``\\t``, ``semicolon``."""
    return _WORDS.get(word.lower(), word)


def spoken(separator: str) -> str:
    """A separator in a sentence: ``semicolons``, or the character itself."""
    return SEPARATORS.get(separator, repr(separator))


def is_encoding(name: Any) -> bool:
    """Whether Python decodes text with it (``rot13`` and ``base64`` are codecs of another sort)."""
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=str(name))
    except (LookupError, ValueError):
        return False
    return isinstance(name, str)
