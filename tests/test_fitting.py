"""Tables in a narrow terminal: every cell is there, no line is too long, every row is known."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from mtl.fitting import ALIGNED, fitted, terminal_width

HEADERS = ["task", "method", *(f"column {place}" for place in range(9))]
ROWS = [[f"demo/t{n}", "pfeiffer", *(f"{n}.{place}" for place in range(9))] for n in range(4)]


def lines(text: str) -> list[str]:
    return text.splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_blocks_hold_every_cell_under_its_name(width: int) -> None:
    text = fitted(ROWS, HEADERS, keys=2, width=width)
    assert max(map(len, lines(text))) <= width
    blocks = text.split("\n\n")
    assert len(blocks) > 1
    for block in blocks:
        head, _, *rest = lines(block)
        for row, line in zip(ROWS, rest, strict=True):
            cells = line.split()
            assert cells[:2] == row[:2]  # which row it is
            places = [int(word) for word in head.split() if word.isdigit()]
            assert cells[2:] == [row[2 + place] for place in places]
    for place in range(9):
        assert text.count(f"column {place}") == 1


def test_long_names_of_rows_stand_once_and_numbers_after_that() -> None:
    long = [[f"base-ab12cd34/suite/task{n}/pfeiffer/seed0-{n}", *row] for n, row in enumerate(ROWS)]
    text = fitted(long, ["entry", *HEADERS], width=60)
    assert max(map(len, lines(text))) <= 60
    for n, row in enumerate(long):
        assert text.count(row[0]) == 1
        assert sum(line.startswith(f"{n + 1} ") for line in lines(text)) == text.count("\n\n") + 1


def test_what_fits_is_one_table_and_a_cell_is_never_cut() -> None:
    assert "\n\n" not in fitted(ROWS, HEADERS, keys=2, width=200)
    word = "x" * 90
    assert word in fitted([["a", "b", word]], ["one", "two", "three"], width=40)
    many = [[f"entry {n}", "y" * 30, n] for n in range(ALIGNED + 1)]
    text = fitted(many, ["one", "two", "three"], width=30)
    assert text.split("\n\n")[1].startswith("one")
    assert all(f"entry {n} " in text for n in range(ALIGNED + 1))
    assert fitted([], ["one"], width=3).startswith("one")


def test_only_a_terminal_limits_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal_width() is None
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert terminal_width() == 80  # what a terminal of unknown size has
    monkeypatch.setenv("COLUMNS", "132")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal_width() == 132


def test_the_report_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtl.report.stats import mean_interval
    from mtl.report.tables import Row
    from mtl.report.tables_text import render

    row: dict[str, Any] = {
        "task": "demo/entail", "base": "demo 330ad112", "kind": "adapter", "metric": "accuracy",
        "sources": 0, "parameters": 50178, "test": mean_interval([0.5, 0.6]), "seeds": [0, 1],
        "examples": 2000, "dev": mean_interval([0.5, 0.6]), "selected_by": "dev metric",
    }  # fmt: skip
    rows = [Row(method=name, **row) for name in ("pfeiffer", "lora")]
    whole = render(rows)
    assert max(map(len, lines(whole.split("\n\ndev:")[0]))) > 120
    monkeypatch.setenv("COLUMNS", "90")
    narrow = render(rows).split("\n\ndev:")[0]
    assert max(map(len, lines(narrow))) <= 90
    assert {*whole.split("\n\ndev:")[0].split()} <= {*narrow.split()} | {
        word for word in whole.split() if set(word) == {"-"}
    }
