"""Compositions find their controls and own adapters without going through all the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from zoo_bench import manifest

from mtl.report import tables
from mtl.report.controls import Controls
from mtl.zoo import Entry, Manifest

SCORE = {"accuracy": {"value": 0.5, "stderr": 0.1, "n": 4, "caveat": None}}


def entry(number: int, **changes: Any) -> Entry:
    described = manifest(
        runhash=f"{number:016x}",
        metrics={"test": SCORE, "dev": SCORE},
        training={**manifest().training, "baselines": {}},
        **changes,
    )
    return Entry(Path("/nowhere"), f"base/toy/own/{number}", described, f"{number:064x}", {})


def composed(number: int, rate: float, control: str = "", **training: Any) -> Entry:
    parents = [{"ref": "r", "digest": "0" * 64, "task": "t", "method": "pfeiffer", "seed": 0}]
    run = {"lr": rate, **({"control": control} if control else {})}
    changes = {"kind": "composition", "method": "scalearn", "placement": None, "parents": parents}
    found = entry(number, run_settings=run, **changes)
    found.manifest.training.update(training)
    return found


def tried(*sources: str) -> dict[str, Any]:
    candidates = [{"candidate": {"sources": [name], "method": "average"}} for name in sources]
    return {"tried": candidates, "budget": 12, "by": "dev"}


def test_a_control_belongs_to_its_composition_alone() -> None:
    real, other = composed(1, 1e-3), composed(2, 2e-3)
    twins, rotated = composed(3, 1e-3, "permuted"), composed(4, 1e-3, "rotated")
    found = Controls([[twins], [real], [rotated], [other]])
    assert found.of(real.manifest) == [("permuted", [twins]), ("rotated", [rotated])]
    assert found.of(other.manifest) == []
    whole = composed(5, 1, "permuted")  # 1 and 1.0 are one rate
    assert Controls([[whole]]).of(composed(6, 1.0).manifest) == [("permuted", [whole])]


def test_a_searched_one_belongs_to_what_was_searched_alike() -> None:
    real = composed(1, 1e-3, choice=tried("a", "b"))
    alike = composed(2, 5e-3, "permuted", choice=tried("b", "a"))
    another = composed(3, 5e-3, "permuted", choice=tried("a"))
    plain = composed(4, 1e-3, "permuted")
    found = Controls([[alike], [another], [plain]])
    assert found.of(real.manifest) == [("permuted", [plain]), ("permuted", [alike])]
    assert found.of(composed(5, 1e-3).manifest) == [("permuted", [plain])]


def test_a_search_by_other_settings_is_no_control() -> None:
    """The same tasks may stand for other sources, and trials may have been trained otherwise."""

    def by(number: int, among: str, control: str = "") -> Entry:
        told = tried("a", "b") | ({"among": among} if among else {})
        return composed(number, 1e-3 * number, control, choice=told)

    twins = [[by(2, "one", "permuted")], [by(3, "other", "permuted")], [by(4, "", "rotated")]]
    found = Controls(twins)
    assert found.of(by(1, "one").manifest) == [("permuted", twins[0]), ("rotated", twins[2])]
    assert found.of(by(1, "new").manifest) == [("rotated", twins[2])]
    assert len(found.of(by(1, "").manifest)) == 3  # an entry of before does not tell


@pytest.mark.parametrize("what", ["control", "headline"])
def test_a_report_of_more_rows_asks_each_as_often(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = getattr(Manifest, what)

    def counted(self: Manifest) -> Any:
        asked.append(1)
        return real.fget(self) if isinstance(real, property) else real(self)

    monkeypatch.setattr(
        Manifest, what, property(counted) if isinstance(real, property) else counted
    )
    counts = []
    for rows in (10, 20, 40):
        asked.clear()
        adapters = [entry(n, run_settings={"lr": 1e-3 * n}) for n in range(1, 6)]
        mixed = [composed(100 + n, 1e-4 * n, "permuted" * (n % 2)) for n in range(rows)]
        assert len(tables.results([*adapters, *mixed])) == rows + 5
        counts.append(len(asked))
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0])
