"""Signs in the rows themselves that a file was read in another way than it was written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mtl.checks.findings import SHOWN, Example, Finding, share, short
from mtl.checks.headers import looks_like_a_row
from mtl.data.origins import split_files
from mtl.errors import RequestError
from mtl.files import DATA_ROOT, user_path
from mtl.tasks.dialect import SEPARATED, Dialect

if TYPE_CHECKING:
    from mtl.data.raw_rows import RawRows
    from mtl.data.task_data import Split, TaskData

LONG = 10
"""A row this many times as long as 19 of 20 others is worth a look …"""
LEAST_LONG = 1000
"""… if it has as many characters."""


def oddities(data: TaskData, rows: RawRows) -> list[Finding]:
    """Rows far longer than the rest, and wrongly decoded text."""
    found: list[Finding] = []
    for name, split in data.splits.items():
        found += _long(rows, name, split)
        found += _misread(rows, name, split)
    return found


def lost_rows(rows: RawRows) -> Iterator[Finding]:
    """First lines of CSV files that look like a row, where the task does not say what they are."""
    spec = rows.spec
    if "files" not in spec.data or Dialect.from_data(spec.data).header is not None:
        return
    root = None if rows.data_root is None else user_path(rows.data_root, DATA_ROOT)
    for split, path in split_files(spec, root).items():
        if path.suffix.lower() not in SEPARATED:
            continue
        try:
            table = rows.raw.read(split)
        except RequestError:  # said elsewhere
            continue
        why = looks_like_a_row(table.column_names, [c.to_pylist() for c in table.columns])
        if why:
            yield Finding(
                "header-row",
                "problem",
                f"line 1 of {path} looks like a row and no header ({why}), so that row is lost; "
                "write `header: false` and `columns: [a name each]` below `data` in "
                f"{spec.where}, or `header: true` if it names the columns",
                split,
                1,
                len(table) + 1,
                [Example(f"line 1 of {path}", short(table.column_names))],
            )


def _long(rows: RawRows, name: str, split: Split) -> Iterator[Finding]:
    sizes = np.array([sum(map(len, texts)) for texts in zip(*split.texts, strict=True)])
    usual = float(np.quantile(sizes, 0.95))
    # Of few rows the long one itself would be the measure.
    if len(sizes) < 2 * LONG:
        usual = float(np.median(sizes))
    odd = np.flatnonzero((sizes > LONG * usual) & (sizes >= LEAST_LONG))
    if not len(odd):
        return
    odd = odd[np.argsort(-sizes[odd])]
    examples = [
        Example(
            rows.place(split.source, int(split.rows[row])),
            f"{sizes[row]:,} characters: {short([texts[row] for texts in split.texts])}",
        )
        for row in odd[:SHOWN].tolist()
    ]
    text = (
        f"{name}: {share(len(odd), len(split))} have more than {LONG} times the characters of "
        f"most others ({usual:,.0f}); look whether rows ran together"
    )
    yield Finding("long-row", "remark", text, name, len(odd), len(split), examples)


def _misread(rows: RawRows, name: str, split: Split) -> Iterator[Finding]:
    odd = [
        row
        for row, texts in enumerate(zip(*split.texts, strict=True))
        if any(not text.isascii() and is_misread(text) for text in texts)
    ]
    if odd:
        examples = [
            Example(
                rows.place(split.source, int(split.rows[row])),
                short([texts[row] for texts in split.texts]),
            )
            for row in odd[:SHOWN]
        ]
        text = (
            f"{name}: {share(len(odd), len(split))} look as if they were decoded wrongly on their "
            "way into the file (é as Ã©, replacement characters, or controls of Latin-1 where "
            "cp1252 has quotes)"
        )
        yield Finding("misread-text", "remark", text, name, len(odd), len(split), examples)


def is_misread(text: str) -> bool:
    """Whether a text shows what wrong decoding leaves: U+FFFD, C1 controls, UTF-8 read as cp1252.

    The last is seen by undoing it: hardly any text encodes as cp1252 into bytes that are UTF-8.
    """
    if any(letter == "\ufffd" or "\x80" <= letter <= "\x9f" for letter in text):
        return True
    try:
        return not text.encode("cp1252").decode("utf-8").isascii()
    except UnicodeError:
        return False
