"""Metrics over resampled test examples, all samples at once.

A bootstrap sample of N examples says how often it holds each: ``counts`` (S,N). Metrics over
classes and Pearson's correlation are functions of a few sums over examples, so that all samples of
a metric are one product ``counts @ features`` (N,k). The samples are those of a loop that draws one
after the other with the same seed, and so are the results, up to rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtl.errors import ZooError
from mtl.files import sha256_bytes
from mtl.remembered import computed, keep_computed
from mtl.tasks import METRICS
from mtl.tasks.metrics import Metric
from mtl.zoo.names import predictions_file
from mtl.zoo.predictions import read_predictions

if TYPE_CHECKING:
    from mtl.zoo import Entry, Predictions

_LOG = logging.getLogger("mtl.report")
DRAWS, SEED, LEVEL = 1000, 0, 0.95
FORM = 2
"""Of what is kept of results on this machine: another number, and they are computed anew."""
_CELLS = 1 << 21  # counts that are held at once: 8 MB
_KEPT = 1 << 24  # counts that are kept between entries: 64 MB

Features = Callable[[np.ndarray, np.ndarray], np.ndarray]
Finish = Callable[[np.ndarray, int], np.ndarray]


def paired_bootstrap(
    metric: str,
    own: Sequence[Predictions],
    composed: Sequence[Predictions],
    *,
    draws: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
) -> tuple[float, float] | None:
    """Percentile interval of the gain over the choice of test examples.

    Every draw resamples the examples, the same ones for both sides and for all seeds, and averages
    the difference of ``metric`` over the seeds. It says what another test set could have shown;
    :func:`mtl.report.paired_gain` says what other seeds could have.

    Args:
        own, composed: predictions of one split, seed by seed.

    Returns:
        (low, high), or None where the pairs do not cover the same rows, or where an example of
        the metric is a group of rows, which predictions do not tell.
    """
    if not own or len(own) != len(composed) or not _by_rows(metric):
        return None
    if any(not np.array_equal(item.row, own[0].row) for item in [*own, *composed]):
        return None
    first, second = (
        np.stack([resampled(metric, item.label, item.prediction, draws, seed) for item in side])
        for side in (own, composed)
    )
    return _percentiles(second - first, level)


def resampled_gains(
    metric: str, own: Sequence[Entry], composed: Sequence[Entry]
) -> np.ndarray | None:
    """Differences of a metric on test, pair by pair, over all samples: (pairs, draws).

    None where the pairs do not cover the same rows, or where an example is a group of rows, or
    nobody here knows the metric.

    Raises:
        ZooError: an entry stores no answers on test, or damaged ones.
    """
    found = resampled_scores(metric, [*own, *composed])
    return None if found is None else found[len(own) :] - found[: len(own)]


def resampled_scores(metric: str, entries: Sequence[Entry]) -> np.ndarray | None:
    """A metric on test of every entry over all samples: (entries, draws).

    None where they do not cover the same rows, or where an example is a group of rows, or
    nobody here knows the metric.

    Raises:
        ZooError: an entry stores no answers on test, or damaged ones.
    """
    if not _by_rows(metric):
        return None
    found = [_of_entry(metric, *_place(entry)) for entry in entries]
    if len({rows for rows, _ in found}) != 1:
        return None
    return np.stack([values for _, values in found])


def gain_over_examples(
    metric: str, own: Sequence[Entry], composed: Sequence[Entry]
) -> tuple[float, float] | None:
    """:func:`paired_bootstrap` of the stored test answers of entries, seed by seed.

    Kept on this machine by the hashes of the answers; an entry that several rows are compared with
    is resampled once.
    """
    if not _by_rows(metric):
        return None
    try:
        marks = [[_mark(entry) for entry in side] for side in (own, composed)]
        key = f"{FORM} {metric} {DRAWS} {SEED} {LEVEL} {marks}"
        found = computed("bootstrap", key)
        if found is None:
            gains = resampled_gains(metric, own, composed)
            found = () if gains is None else _percentiles(gains, LEVEL)
            keep_computed("bootstrap", key, list(found))
        return (float(found[0]), float(found[1])) if len(found) == 2 else None
    except ZooError as error:
        _LOG.warning("no interval over test examples: %s", error)
        return None


def _by_rows(metric: str) -> bool:
    """Whether a metric is of single rows; one that is not known here, of a stranger's, is none."""
    return metric in METRICS.names() and METRICS.get(metric).grouped is None


def _mark(entry: Entry) -> str:
    return _place(entry)[1]


def _place(entry: Entry) -> tuple[Path, str]:
    name = predictions_file()
    if name not in entry.files:
        raise ZooError(f"{entry.ref} stores no predictions on its test split.")
    return entry.folder, str(entry.files[name]["sha256"])


@lru_cache(maxsize=2048)
def _of_entry(metric: str, folder: Path, mark: str) -> tuple[str, np.ndarray]:
    """The rows of stored answers, as a hash, and the metric over all samples of them."""
    del mark  # what the answers are: the same folder may hold others later
    stored = read_predictions(folder)
    values = resampled(metric, stored.label, stored.prediction, DRAWS, SEED)
    return sha256_bytes(np.ascontiguousarray(stored.row).tobytes()), values


def _percentiles(gains: np.ndarray, level: float) -> tuple[float, float]:
    """Of the mean over pairs of (pairs, draws)."""
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(np.mean(gains, axis=0), [tail, 100 - tail])
    return float(low), float(high)


def resampled(
    metric: str, labels: np.ndarray, predictions: np.ndarray, draws: int, seed: int
) -> np.ndarray:
    """A metric over bootstrap samples of the rows: (draws,).

    Raises:
        KeyError: the metric is over groups of rows.
    """
    found = METRICS.get(metric)
    features, finish = _sums(found, labels, predictions)
    parts = []
    for counts in counted_draws(len(labels), draws, seed):
        if features is None:
            parts.append(_direct(found)(labels, predictions, counts.astype(np.float64)))
        else:
            parts.append(finish(counts.astype(features.dtype) @ features, len(labels)))
    return np.concatenate(parts)


def counted_draws(rows: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Bootstrap samples as counts, (S,N) uint8 by pieces, ``draws`` of them in all."""
    if rows * draws <= _KEPT:
        yield from _kept_draws(rows, draws, seed)
    else:
        yield from _drawn(rows, draws, seed)


@lru_cache(maxsize=4)
def _kept_draws(rows: int, draws: int, seed: int) -> tuple[np.ndarray, ...]:
    return tuple(_drawn(rows, draws, seed))


def _drawn(rows: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // rows)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        picked = rng.integers(0, rows, (size, rows)) + np.arange(size)[:, None] * rows
        counts = np.bincount(picked.ravel(), minlength=size * rows)
        # A row that a sample holds 256 times is beyond all chance, unless there are few rows.
        yield counts.reshape(size, rows).astype(np.uint8 if rows > 255 else np.int64)


def _direct(metric: Metric) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    if metric.resampled is None:
        raise KeyError(f"{metric.name} is over groups of rows: their answers are not stored.")
    return metric.resampled


def _sums(
    metric: Metric, labels: np.ndarray, predictions: np.ndarray
) -> tuple[np.ndarray | None, Finish]:
    """What a metric sums over rows, (N,k), and what it makes of the sums, (S,k) → (S,)."""
    several = labels.ndim == 2
    if metric.name == "accuracy":
        right = labels == predictions
        right = right.all(axis=1) if several else right
        return right[:, None].astype(np.float32), lambda sums, n: sums[:, 0].astype(float) / n
    if metric.name == "f1":
        return _class_sums([(labels == 1, predictions == 1)]), _mean_f1(every=True)
    if metric.name == "macro_f1":
        if several:
            pairs = [(a == 1, b == 1) for a, b in zip(labels.T, predictions.T, strict=True)]
        else:
            classes = np.union1d(labels, predictions)
            pairs = [(labels == name, predictions == name) for name in classes]
        return _class_sums(pairs), _mean_f1(every=several)
    if metric.name == "matthews":
        classes = np.union1d(labels, predictions)
        sides = [(side == name) for side in (labels, predictions) for name in classes]
        features = np.stack([labels == predictions, *sides], axis=1).astype(np.float32)
        return features, _matthews
    if metric.name == "pearson":
        # Centred before anything is squared: means far from 0 would eat the digits.
        x, y = (side - side.mean() for side in (labels.astype(float), predictions.astype(float)))
        return np.stack([x, y, x * x, y * y, x * y], axis=1), _pearson
    return None, lambda sums, n: sums


def _class_sums(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """True positives of every class, then 2·tp + fp + fn of every class: (N, 2C)."""
    hits = [label & prediction for label, prediction in pairs]
    sizes = [label.astype(int) + prediction.astype(int) for label, prediction in pairs]
    return np.stack([*hits, *sizes], axis=1).astype(np.float32)


def _mean_f1(*, every: bool) -> Finish:
    """2·tp / (2·tp + fp + fn), a mean over classes: over every one, or those in the sample."""

    def finish(sums: np.ndarray, _: int) -> np.ndarray:
        hits, sizes = np.split(sums.astype(float), 2, axis=1)
        present = sizes > 0
        parts = np.divide(2 * hits, sizes, out=np.zeros_like(hits), where=present)
        held = sizes.shape[1] if every else present.sum(axis=1)
        found: np.ndarray = parts.sum(axis=1) / held
        return found

    return finish


def _matthews(sums: np.ndarray, n: int) -> np.ndarray:
    """(c·n − Σ t_k·p_k) / sqrt((n² − Σ t_k²)·(n² − Σ p_k²)), 0 where one side is constant."""
    right = sums[:, 0].astype(float)
    true, guessed = np.split(sums[:, 1:].astype(float), 2, axis=1)
    over = right * n - (true * guessed).sum(axis=1)
    under = np.sqrt((n**2.0 - (true**2).sum(axis=1)) * (n**2.0 - (guessed**2).sum(axis=1)))
    return np.divide(over, under, out=np.zeros(len(over)), where=under > 0)


def _pearson(sums: np.ndarray, n: int) -> np.ndarray:
    """cov / (std · std) of the drawn rows, 0 where one side is constant."""
    x, y, xx, yy, xy = (sums / n).T
    spread_x, spread_y = xx - x * x, yy - y * y
    # What is left of a constant side is rounding of what was squared.
    varied = (spread_x > 1e-12 * xx) & (spread_y > 1e-12 * yy)
    under = np.sqrt(np.where(varied, spread_x * spread_y, 1.0))
    return np.clip(np.where(varied, (xy - x * y) / under, 0.0), -1.0, 1.0)
