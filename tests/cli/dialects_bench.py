"""One table of sixty rows as files write it, and how many rows of it a task reads."""

from __future__ import annotations

import json
from typing import Any

from cli_bench import mtl

NOUNS = ["kettle", "lamp", "train", "garden", "printer", "soup"]


def text(n: int) -> str:
    return f"The {NOUNS[n % 6]} number {n}, as it was, came back dull and broken"


def label(n: int) -> str:
    return ["neg", "pos"][n % 2]


ROWS = [(text(n), label(n)) for n in range(60)]


def cells(separator: str, *, header: str = "text{}label\n") -> str:
    return header.format(separator) + "".join(f"{t}{separator}{name}\n" for t, name in ROWS)


def quoted(*, header: bool = True) -> str:
    return ("text,label\n" if header else "") + "".join(f'"{t}",{name}\n' for t, name in ROWS)


def swallowing() -> str:
    """A TSV without quoting: row 10 begins with a quote, row 50 ends with an inch mark."""
    lines = cells("\t").splitlines()
    lines[11] = f'"Oh, that {text(10)}\tneg'
    lines[51] = f'{text(50)} of 5"\tneg'
    return "\n".join(lines) + "\n"


def lines_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


OBJECTS = [{"text": t, "label": name} for t, name in ROWS]


def sizes(task: str) -> int:
    """Rows of a task, after a check that finds nothing at all."""
    report = mtl("tasks", "check", task, "--near", "0", "--json").json["tasks"][0]
    assert report["findings"] == []
    return sum(split["rows"] for split in report["splits"])
