"""Resampled test examples: the same samples and results as a loop over the libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo_bench import manifest, predictions, store

from mtl.report import paired_bootstrap, resampling
from mtl.report.resampling import counted_draws, gain_over_examples, resampled
from mtl.tasks import METRICS
from mtl.zoo import Entry, Predictions, open_zoo


def stored(label: np.ndarray, prediction: np.ndarray) -> Predictions:
    rows = np.arange(len(label))
    return Predictions(rows, label, prediction, np.zeros((len(label), 2), np.float32))


def looped(metric: str, own: list[Predictions], composed: list[Predictions]) -> np.ndarray:
    """One sample after the other, by scikit-learn and scipy: what reports did before."""
    compute = METRICS.get(metric).compute
    assert compute is not None
    rng = np.random.default_rng(0)
    rows, gains = len(own[0].row), []
    for _ in range(60):
        counts = np.bincount(rng.integers(0, rows, rows), minlength=rows)
        kept = np.flatnonzero(counts)
        weight = counts[kept].astype(np.float64)
        each = [
            compute(b.label[kept], b.prediction[kept], weight)
            - compute(a.label[kept], a.prediction[kept], weight)
            for a, b in zip(own, composed, strict=True)
        ]
        gains.append(np.mean(each))
    return np.percentile(gains, [2.5, 97.5])


def answers(metric: str, rng: np.random.Generator, rows: int) -> tuple[Any, Any]:
    if metric in ("pearson", "spearman"):
        label = rng.normal(3.0, 1.0, rows).astype(np.float32)
        return label, (label + rng.normal(0, 1, rows)).astype(np.float32)
    classes = 2 if metric == "f1" else 4
    label = rng.integers(0, classes, rows)
    return label, np.where(rng.random(rows) < 0.6, label, rng.integers(0, classes, rows))


METRICS_OF_ROWS = ["accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman"]


@pytest.mark.parametrize("metric", METRICS_OF_ROWS)
@pytest.mark.parametrize("rows", [7, 300])
def test_the_same_interval_as_a_loop(metric: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    label, _ = answers(metric, rng, rows)
    own, composed = ([stored(label, answers(metric, rng, rows)[1]) for _ in range(3)] for _ in "ab")
    found = paired_bootstrap(metric, own, composed, draws=60)
    assert found == pytest.approx(looped(metric, own, composed), abs=1e-9)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_sets_of_labels(metric: str) -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, (200, 5))
    own, composed = ([stored(label, rng.integers(0, 2, (200, 5)))] for _ in "ab")
    found = paired_bootstrap(metric, own, composed, draws=60)
    assert found == pytest.approx(looped(metric, own, composed), abs=1e-9)


def test_the_metrics_are_all_of_those_over_rows() -> None:
    assert [name for name in METRICS if METRICS.get(name).grouped is None] == METRICS_OF_ROWS


@pytest.mark.parametrize("metric", METRICS_OF_ROWS)
def test_constant_answers_score_nothing(metric: str) -> None:
    rng = np.random.default_rng(2)
    label, _ = answers(metric, rng, 40)
    constant = np.full_like(label, 1) + (0.1 if label.dtype == np.float32 else 0)
    found = resampled(metric, label, constant, 50, 0)
    assert np.isfinite(found).all()
    if metric in ("matthews", "pearson", "spearman"):
        assert (found == 0).all()


@pytest.mark.parametrize("rows", [3, 500, 5000])
def test_samples_are_drawn_one_after_the_other(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_CELLS", 7 * rows)  # pieces of seven samples
    rng = np.random.default_rng(3)
    wanted = [np.bincount(rng.integers(0, rows, rows), minlength=rows) for _ in range(20)]
    found = np.concatenate(list(resampling._drawn(rows, 20, 3)))
    assert np.array_equal(found, wanted)
    assert sum(len(piece) for piece in counted_draws(rows, 20, 3)) == 20


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    zoo = open_zoo(tmp_path / "zoo")
    return [store(zoo, manifest(seed=seed, runhash=f"{seed:016x}")) for seed in range(2)]


def test_entries_are_kept_by_what_they_answered(
    entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    one, two = entries
    first = gain_over_examples("accuracy", [one], [two])
    assert first == (0.0, 0.0)  # both give the same answers
    resampling._of_entry.cache_clear()
    monkeypatch.setattr(resampling, "resampled", None)  # nothing is computed again
    assert gain_over_examples("accuracy", [one], [two]) == first


def test_other_answers_are_another_key(
    entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    one, _ = entries
    gain_over_examples("accuracy", [one], [one])
    zoo = open_zoo(tmp_path / "other")
    ref = zoo.location("tiny-abababab", "toy", "own", "pfeiffer", 0, "f" * 16)
    with zoo.stage(ref) as folder:
        (folder / "adapter_config.json").write_text('{"config": {}}\n')
        predictions(folder, [0, 1, 0, 1])
        other = zoo.commit(folder, ref, manifest(runhash="f" * 16))
    found = gain_over_examples("accuracy", [one], [other])
    assert found is not None
    assert found[0] < 0


def test_entries_without_answers_or_of_other_rows(entries: list[Entry], tmp_path: Path) -> None:
    one, _ = entries
    zoo = open_zoo(tmp_path / "other")
    refs = [zoo.location("tiny-abababab", "toy", "own", "pfeiffer", n, f"{n}" * 16) for n in (0, 1)]
    for ref, answered in zip(refs, ([], [1, 0, 1]), strict=True):
        with zoo.stage(ref) as folder:
            (folder / "adapter_config.json").write_text('{"config": {}}\n')
            if answered:
                predictions(folder, answered, (1, 0, 1))
            zoo.commit(folder, ref, manifest(runhash=ref[-1] * 16))
    for ref in refs:
        assert gain_over_examples("accuracy", [one], [zoo.get(ref)]) is None
    assert gain_over_examples("token_f1", [one], [one]) is None


def test_a_metric_that_nobody_here_knows(tmp_path: Path) -> None:
    """A stranger's entry stops no report: there is no interval, and everything else."""
    zoo = open_zoo(tmp_path / "zoo")
    entry = store(zoo, manifest())
    assert gain_over_examples("their_own", [entry], [entry]) is None
    assert gain_over_examples("accuracy", [entry], [entry]) is not None
