"""Compositions against own adapters over seeds and examples: by hand and by simulation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t
from zoo_bench import composition, manifest, store

from mtl.cli.main import dispatch
from mtl.report.paired import mixed, paired_tests
from mtl.zoo import open_zoo


def test_by_hand() -> None:
    own, other = [0.50, 0.60, 0.70], [0.60, 0.65, 0.85]  # gains 0.10, 0.05, 0.15: s = 0.05
    gains = np.repeat(np.array([[0.10], [0.05], [0.15]]), 4000, axis=1)  # rows that all agree
    found = mixed(own, other, gains)
    assert (found.gain, found.n) == (pytest.approx(0.10), 3)
    assert found.effect == pytest.approx(2.0 * (1 - 3 / 7))
    # above: 0.60 > 0.50; 0.65 > 0.50, 0.60; 0.85 > all; 0.60 = 0.60
    assert found.superiority == pytest.approx((1 + 0.5 + 2 + 3) / 9)
    # SE = s/sqrt(n), two degrees of freedom: the t interval over seeds
    assert found.high is not None
    assert found.high - found.gain == pytest.approx(4.302653 * 0.05 / 3**0.5, rel=1e-6)


def test_the_error_by_hand() -> None:
    gains = np.array([[0.0, 0.2, 0.1], [0.2, 0.4, 0.0]])  # means 0.1, 0.3, 0.05
    found = mixed([0.0, 0.0], [0.1, 0.4], gains)
    seeds, rows = 0.3**2 / 2 / 2, np.var([0.1, 0.3, 0.05], ddof=1)
    both = np.mean([np.var([-0.1, -0.1, 0.05], ddof=1), np.var([0.1, 0.1, -0.05], ddof=1)])
    error = np.sqrt(seeds + rows - both)
    df = error**4 / seeds**2
    assert found.p == pytest.approx(2 * t.sf(0.25 / error, df))


def test_one_pair_and_pairs_all_alike_have_no_interval() -> None:
    one = mixed([0.5], [0.6], np.full((1, 100), 0.1))
    assert (one.gain, one.p, one.effect, one.superiority) == (pytest.approx(0.1), None, None, 1.0)
    alike = mixed([0.5, 0.5], [0.5, 0.5], np.zeros((2, 100)))
    assert (alike.p, alike.low, alike.effect, alike.superiority) == (None, None, None, 0.5)


@pytest.mark.parametrize(("spread", "common"), [(0.0, 0.0), (0.03, 0.0), (0.0, 0.5), (0.03, 0.5)])
def test_its_false_rate_is_near_nominal(spread: float, common: float) -> None:
    """300 tests of nothing: five pairs, 200 rows; seeds that matter or not (``spread``), rows on
    which one side is better for all seeds, or not (``common``)."""
    rng = np.random.default_rng(int(100 * spread + 10 * common))
    rejected = 0
    for _ in range(300):
        draws = rng.multinomial(200, np.full(200, 1 / 200), size=200) / 200  # of the rows
        hard = rng.normal(0, 0.15, 200)  # rows are as hard for every run
        right = [
            rng.random((5, 200))
            < 0.7 + hard + rng.normal(0, common, 200) + rng.normal(0, spread, (5, 1))
            for _ in range(2)
        ]
        apart = right[1].astype(float) - right[0].astype(float)
        found = mixed(right[0].mean(1), right[1].mean(1), apart @ draws.T)
        rejected += found.p is not None and found.p < 0.05
    assert rejected / 300 <= 0.09
    if spread or common:  # where nothing but single answers differs, it errs on the safe side
        assert rejected / 300 >= 0.01


def test_reports_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    for seed in range(2):
        scored = {"test": {"accuracy": {"value": 0.75, "stderr": 0.1, "n": 4}}}
        own = store(zoo, manifest(seed=seed, runhash=f"{seed:016x}", metrics=scored))
        scored = {"test": {"accuracy": {"value": 1.0, "stderr": 0.1, "n": 4}}}
        omega = np.ones((2, 1, 3), np.float32)
        composition(zoo, [own], omega, seed=seed, runhash=f"{seed + 9:016x}", metrics=scored)
    # a composition names the own adapter of its seed as its source: a row for every seed
    tested = paired_tests(zoo.entries())
    assert {item.found.n for item in tested} == {1}
    assert all(item.found.gain == pytest.approx(0.25) for item in tested)
    assert dispatch("report", ["--zoo", str(zoo.root), "--tests"]) == 0
    assert "superiority" in capsys.readouterr().out
    assert dispatch("report", ["--zoo", str(zoo.root), "--tests", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tests"][0]["found"]["superiority"] == 1.0
    for entry in zoo.entries(kind="composition"):
        zoo.remove(entry.ref)
    assert dispatch("report", ["--zoo", str(zoo.root), "--tests"]) == 2
    assert "no such pair" in capsys.readouterr().err
