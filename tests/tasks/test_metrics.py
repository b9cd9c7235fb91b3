"""Metrics and losses against values worked out by hand, and on degenerate predictions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from task_bench import spec_of

from mtl.errors import RequestError, RunError
from mtl.tasks import METRICS, decode, score, standard_error, task_loss
from mtl.tasks.class_weights import class_weights

LABELS = np.array([1, 1, 1, 0, 0, 0, 0, 1])
PREDICTED = np.array([1, 1, 0, 0, 0, 1, 0, 0])
# true positives 2, false positives 1, false negatives 2, true negatives 3


def compute(metric: str, labels: Any, predictions: Any) -> float:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    return METRICS.get(metric).compute(labels, predictions, np.ones(len(labels)))


def test_classification_by_hand() -> None:
    assert compute("accuracy", LABELS, PREDICTED) == 5 / 8
    assert compute("f1", LABELS, PREDICTED) == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    other = 2 * 3 / (2 * 3 + 2 + 1)
    assert compute("macro_f1", LABELS, PREDICTED) == pytest.approx((4 / 7 + other) / 2)
    matthews = (2 * 3 - 1 * 2) / math.sqrt(3 * 4 * 4 * 5)
    assert compute("matthews", LABELS, PREDICTED) == pytest.approx(matthews)


def test_correlations_by_hand() -> None:
    labels, values = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 8.0]
    # deviations (-1.5, -.5, .5, 1.5) and (-2.5, -.5, -1.5, 4.5): 10 / sqrt(5 · 29)
    assert compute("pearson", labels, values) == pytest.approx(10 / math.sqrt(5 * 29))
    # ranks 1 3 2 4: 1 − 6 · 2 / (4 · 15)
    assert compute("spearman", labels, values) == pytest.approx(0.8)
    # ties share their mean rank: deviations (-1.5, -.5, .5, 1.5) and (-1.5, 0, 0, 1.5)
    assert compute("spearman", labels, [1, 2, 2, 3]) == pytest.approx(4.5 / math.sqrt(5 * 4.5))


@pytest.mark.parametrize("metric", ["f1", "matthews", "pearson", "spearman"])
@pytest.mark.parametrize("value", [0, 0.1])
def test_constants_score_zero_and_never_nan(metric: str, value: float) -> None:
    labels = np.array([0, 1, 0, 1, 1])
    constant = np.full(5, value if metric in {"pearson", "spearman"} else 0)
    assert compute(metric, labels, constant) == 0.0
    assert compute(metric, constant, labels) == 0.0
    error = standard_error(metric, constant, labels)
    assert error == 0.0


def test_values_that_differ_by_rounding_only_are_constant() -> None:
    values = np.full(6, 0.1, dtype=np.float32)
    values[0] = np.nextafter(values[0], np.float32(1))
    found = compute("pearson", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], values)
    assert math.isfinite(found)


def test_multilabel_metrics() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0]])
    predictions = np.array([[1, 0, 1], [0, 0, 0], [1, 0, 0]])
    assert compute("accuracy", labels, predictions) == pytest.approx(2 / 3)  # whole rows
    assert compute("macro_f1", labels, predictions) == pytest.approx((1 + 0 + 1) / 3)


def test_score_gives_the_metrics_of_the_task_in_order() -> None:
    spec = spec_of(metrics=("f1", "accuracy"))
    assert list(score(spec, PREDICTED, LABELS).items()) == [
        ("f1", pytest.approx(4 / 7)),
        ("accuracy", 0.625),
    ]


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (np.zeros(3), np.zeros(4), "3 predictions for 4 labels"),
        (np.zeros(0), np.zeros(0), "no examples"),
        (np.array([0.0, np.nan]), np.zeros(2), "1 of 2 predictions are NaN"),
        (np.array([0.0, np.inf]), np.zeros(2), "lower learning rate"),
    ],
)
def test_what_cannot_be_scored(predictions: Any, labels: Any, message: str) -> None:
    with pytest.raises(RunError, match=message):
        score(spec_of(), predictions, labels)


def test_standard_error_of_accuracy_is_the_formula() -> None:
    assert standard_error("accuracy", PREDICTED, LABELS) == pytest.approx(
        math.sqrt(0.625 * 0.375 / 8)
    )


def test_bootstrap_agrees_with_drawing_rows_one_by_one() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    predictions = np.where(rng.random(300) < 0.8, labels, 1 - labels)
    fast = standard_error("matthews", predictions, labels, samples=800)
    drawn = [rng.integers(0, 300, 300) for _ in range(400)]
    plain = np.std([compute("matthews", labels[r], predictions[r]) for r in drawn], ddof=1)
    assert fast == pytest.approx(plain, rel=0.2)
    assert fast == standard_error("matthews", predictions, labels, samples=800)
    assert fast != standard_error("matthews", predictions, labels, samples=800, seed=1)
    with pytest.raises(RequestError, match=r"Unknown metric 'mathews'.*'matthews'"):
        standard_error("mathews", predictions, labels)


RESAMPLED = [name for name in METRICS if METRICS.get(name).resampled is not None]


def test_every_metric_has_one_way_to_its_standard_error() -> None:
    for name in METRICS:
        entry = METRICS.get(name)
        ways = (entry.formula, entry.resampled, entry.grouped)
        assert sum(way is not None for way in ways) == 1, name
        assert (entry.compute is None) == (entry.grouped is not None) == bool(entry.needs)


@pytest.mark.parametrize("metric", RESAMPLED)
@pytest.mark.parametrize("rows", [2, 5, 60])
def test_resampling_at_once_is_the_library_sample_by_sample(metric: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    entry = METRICS.get(metric)
    pairs = []
    if "regression" in entry.kinds:  # with ties, and far from zero
        pairs.append((1e4 + rng.integers(0, 4, rows), 1e4 + rng.normal(size=rows).round(1)))
    else:
        classes = 2 if entry.binary else 3
        pairs.append((rng.integers(0, classes, rows), rng.integers(0, classes, rows)))
    if "multilabel" in entry.kinds:
        pairs.append((rng.integers(0, 2, (rows, 3)), rng.integers(0, 2, (rows, 3))))
    for labels, predictions in pairs:
        counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=40).astype(float)
        counts[0] = 0
        counts[0, 0] = rows  # a sample that drew one row only
        expected = [
            entry.compute(labels[row > 0], predictions[row > 0], row[row > 0]) for row in counts
        ]
        assert entry.resampled is not None
        found = entry.resampled(labels, predictions, counts)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_large_tests_are_resampled_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=500)
    predictions = labels + rng.normal(size=500)
    whole = standard_error("spearman", predictions, labels)
    monkeypatch.setattr("mtl.tasks.metrics._CELLS", 5000)
    assert standard_error("spearman", predictions, labels) == pytest.approx(whole, rel=1e-12)


def test_losses_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    found = task_loss(spec_of(), logits, torch.tensor([1, 0]))
    assert found.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    number = spec_of(kind="regression", labels=(), metrics=("pearson",))
    values = torch.tensor([[1.0], [2.0]])
    assert task_loss(number, values, torch.tensor([0.0, 4.0])).item() == pytest.approx(2.5)
    several = spec_of(kind="multilabel", metrics=("macro_f1",))
    zeros = torch.zeros(2, 2)
    assert task_loss(several, zeros, torch.eye(2)).item() == pytest.approx(math.log(2))
    half = task_loss(spec_of(), logits.bfloat16(), torch.tensor([1, 0]))
    assert half.dtype == torch.float32


def test_balanced_losses_by_hand() -> None:
    spec, labels = spec_of(), np.array([0, 0, 0, 1])
    weights = class_weights(spec, labels)
    np.testing.assert_allclose(weights, [4 / 6, 4 / 2])
    assert weights[labels].mean() == pytest.approx(1)  # the loss keeps its size
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0], [0.0, 0.0], [0.0, 0.0]])
    found = task_loss(spec, logits, torch.from_numpy(labels), torch.from_numpy(weights))
    each = [math.log(2), math.log(4 / 3), math.log(2), math.log(2)]
    assert found.item() == pytest.approx(np.mean(weights[labels] * each))
    # parts of a batch add up to the batch, whatever classes are in them
    parts = [
        task_loss(spec, logits[part], torch.from_numpy(labels[part]), torch.from_numpy(weights))
        for part in (slice(0, 3), slice(3, 4))
    ]
    assert (0.75 * parts[0] + 0.25 * parts[1]).item() == pytest.approx(found.item())
    assert class_weights(spec, np.array([1, 1])).tolist() == [1, 1]  # a class that no row has
    several = spec_of(kind="multilabel", metrics=("macro_f1",))
    sets = np.array([[1, 1], [0, 1], [0, 1], [0, 1]])
    assert class_weights(several, sets).tolist() == [3, 1]
    zeros = torch.zeros(4, 2)
    found = task_loss(several, zeros, torch.from_numpy(sets), torch.tensor([3.0, 1.0]))
    assert found.item() == pytest.approx(math.log(2) * (3 + 3 + 4) / 8)


def test_decoding() -> None:
    logits = np.array([[0.5, 0.5], [-1.0, 2.0], [3.0, -0.1]], dtype=np.float32)
    assert decode(spec_of(), logits, {}).tolist() == [0, 1, 0]
    several = spec_of(kind="multilabel", metrics=("macro_f1",))
    assert decode(several, logits, {}).tolist() == [[1, 1], [0, 1], [1, 0]]
    number = spec_of(kind="regression", labels=(), metrics=("pearson",))
    assert decode(number, logits[:, :1], {}).tolist() == [0.5, -1.0, 3.0]
