"""``examples/`` run from end to end, on a tiny suite and encoder."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from cli_bench import ROOT, TASKS

import mtl

EXAMPLES = ROOT / "examples"


def run(name: str, *argv: str) -> None:
    main: Any = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    main(argv)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_zoo_and_target(stocked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--target", "mini/same", "--sources", "mini/mood", "mini/same", "--steps", "4"]
    run("zoo_and_target", *arguments)
    said = capsys.readouterr().out
    (entry,) = mtl.open_zoo().entries(kind="composition")
    assert [parent["task"] for parent in entry.manifest.parents] == ["mini/mood", "mini/same"]
    assert f"{entry.ref}: accuracy " in said
    assert "one adapter of width 24; the logits of adapters" in said
    assert (Path("exported") / "adapter_config.json").is_file()


def test_paper_table(mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("paper_table", "--suite", "mini", "--tasks", *TASKS[:2], "--steps", "2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["|", "task", "|", "pfeiffer", "|", "bitfit", "|"]
    for task, line in zip(TASKS, lines[2:4], strict=False):
        values = []
        for method in ("pfeiffer", "bitfit"):
            found = mtl.open_zoo().entries(task=task, method=method)
            scores = [entry.manifest.headline()["value"] for entry in found]
            assert len(scores) == 2
            values.append(f"{sum(scores) / 2:.4f} ± {abs(scores[0] - scores[1]) / 2**0.5:.4f}")
        assert [cell.strip() for cell in line.split("|")[1:4]] == [f"{task} (accuracy)", *values]
    assert lines[4] == "Mean ± standard deviation over seeds 0, 1."


def test_examples_are_short_and_tested() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [path.stem for path in scripts] == ["paper_table", "zoo_and_target"]
    for path in scripts:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
