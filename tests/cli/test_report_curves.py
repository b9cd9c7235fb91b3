"""``mtl.report --curves`` on runs of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_bench import TASKS, mtl, refused


def test_curves_of_runs_and_where_their_events_are(
    stocked: Path, trained: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    line = ["report", "--suite", "mini", "--curves", tmp_path / "dev.png"]
    refused(mtl(*line), "3 entries and no events of their runs", "--runs")
    refused(mtl(*line, "--heatmap", "x.png"), "leave --heatmap out")
    assert not (tmp_path / "dev.png").exists()
    said = mtl(*line, "--runs", trained.parent / "runs", "--json")
    assert said.code == 0, said
    assert [found["task"] for found in said.json["lines"]] == sorted(TASKS)
    assert {found["line"] for found in said.json["lines"]} == {"pfeiffer"}
    assert said.json["lost"] == []
    assert (tmp_path / "dev.png").read_bytes().startswith(b"\x89PNG")
