"""``mtl.report --html`` on runs of the command line: what it takes, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_bench import TASKS, mtl, refused


def test_a_page_of_a_zoo(stocked: Path, trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    line = ["report", "--suite", "mini", "--html", file]
    said = mtl(*line, "--runs", trained.parent / "runs")
    assert (said.code, said.out) == (0, f"page: {file}\n"), said
    text = file.read_text(encoding="utf-8")
    assert all(text.count(task) for task in TASKS)
    assert "python -m mtl.report --suite mini --html page.html" in text  # without its folders
    assert str(tmp_path) not in text
    assert 'id="curves0-t"' in text  # the runs' events are at hand
    assert "python -m mtl.train --suite mini" in text
    elsewhere = mtl(*line, "--runs", tmp_path / "none", "--json").json
    assert len(elsewhere["lost"]) == len(elsewhere["rows"]) == len(TASKS)
    assert "the events of 3 runs" in file.read_text(encoding="utf-8")


def test_selections_and_a_published_table(stocked: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    said = mtl("report", "--target", "mini/mood", "--html", file, "--against", "scalearn-glue")
    assert said.code == 0, said
    text = file.read_text(encoding="utf-8")
    assert "mini/same" not in text.replace("--sources", "")
    assert "126 cells, 126 not run" in text
    assert "None of its cells was run" in text
    refused(mtl("report", "--html", file, "--where", "lr=77"), "holds no entry")


@pytest.mark.parametrize("other", ["--heatmap x.png", "--curves x.png", "--tests", "--ensemble"])
def test_what_says_nothing_of_a_page(stocked: Path, tmp_path: Path, other: str) -> None:
    file = tmp_path / "page.html"
    refused(mtl("report", "--html", file, *other.split()), "leave --")
    refused(mtl("report", "--html", file, "--latex"), "--html says nothing of it")
    assert not file.exists()
