"""The benchmark of the graph still runs, on a small graph."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "graph_scale.py"


def test_the_benchmark_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("graph_scale", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROWS", 60)
    monkeypatch.setattr(module, "WIDTH", 8)
    line = ["--tasks", "40", "--edges", "300", "--candidates", "2", "--keep", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["graph_scale.py", *line])
    module.main()
    out = capsys.readouterr().out
    assert "40 tasks, 300 edges" in out
    found = json.loads(out.splitlines()[-1])["cpu_seconds"]
    assert {"build the graph", "calibrate", "choose graph:k=5", "draw HTML"} <= set(found)
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    written = {"graph.json", "graph.graphml", "graph.dot", "graph.html", "graph.png", "matrix.png"}
    assert written <= names
