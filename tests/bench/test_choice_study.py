"""``benchmarks/choice.py``: the figures of its table, from made-up answers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtl.zoo.predictions import Predictions

FILE = Path(__file__).parents[2] / "benchmarks" / "choice.py"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = importlib.util.spec_from_file_location("choice_study", FILE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(__import__("sys").modules, "choice_study", module)
    found.loader.exec_module(module)
    monkeypatch.setattr(module, "read_predictions", lambda folder: folder)
    return module


def entry(right: float, rows: int = 600, cost: float | None = None) -> Any:
    """A run that answers this share of the rows rightly, spread evenly over both halves."""
    label = np.arange(rows) % 2
    order = np.random.RandomState(0).permutation(rows)  # as the study halves them
    half = rows // 2
    ranks = np.empty(rows, int)
    ranks[order] = np.arange(rows) // 2
    wrong = ranks >= round(right * half)
    column = np.zeros(rows)
    choice = {"by": "dev accuracy", "rows": 300, "cost": cost}
    chosen = {"method": "scalearn", "start": None, "sources": ["toy/a"]}
    manifest = SimpleNamespace(
        task={"headline": "accuracy"},
        training={"choice": {**choice, "chosen": chosen}} if cost else {},
        metrics={"dev": {"accuracy": {"value": right + 0.1}}},
    )
    answers = Predictions(
        np.arange(rows), label, np.where(wrong, 1 - label, label), column[:, None]
    )
    return SimpleNamespace(manifest=manifest, folder=answers)


def figures(study: Any, *, best: float, rows: int = 600) -> dict[str, Any]:
    own, alone = entry(0.6, rows), entry(0.8, rows)
    runs = {
        "own": {0: own},
        "best": {0: entry(best, rows, cost=5.0)},
        "all": {0: entry(0.7, rows)},
        "auto": {0: entry(0.5, rows)},
    }
    candidates = {"own adapter": own, "all": runs["all"][0], "toy/a alone": alone}
    found = study._figures("toy/own", runs, candidates, {"toy/a": alone, "toy/own": own})
    return {"task": "toy/own", "rows": 100, **found}


def test_regret_is_what_the_best_in_hindsight_has_more(study: Any) -> None:
    found = figures(study, best=0.78)
    assert found["hindsight"] == ["toy/a alone"] * 2
    wanted = {"own": 0.2, "best": 0.02, "all": 0.1, "auto": 0.3}
    assert found["regret"] == pytest.approx(wanted, abs=0.01)
    assert found["gain"]["auto"]["mean"] == pytest.approx(-0.1, abs=0.01)
    assert study._below(found, "auto")
    assert not study._below(found, "best")
    assert found["alone"]["toy/a"]["dev"] - found["alone"]["toy/a"]["test"] == pytest.approx(0.1)


def test_the_worst_counts_only_targets_with_enough_test_rows(study: Any) -> None:
    text = study.table([figures(study, best=0.78), figures(study, best=0.5, rows=60)])
    (line,) = (line for line in text.splitlines() if line.startswith("best "))
    assert line.split()[1:3] == ["+0.1600", "+0.0200"]
    assert "1 of 2" in line  # the small one is below its own adapter
    assert "5.0 (at most 5.0)" in line
    assert "dev − test of the own adapter alone: +0.1000" in text
