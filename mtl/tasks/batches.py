"""Which rows form which batch: pure functions, so that any batch can be found again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mtl.tasks.encoding import Encoded

WINDOW = 50
"""Batches among which rows of like length are put together; the order between windows is random."""


def train_order(encoded: Encoded, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch as row numbers: every row once, the last batch may be smaller.

    Rows are shuffled, sorted by length inside windows of :data:`WINDOW` batches (so that batches
    need little padding), and the batches shuffled. A pure function of its arguments.
    """
    rng = np.random.default_rng([seed, epoch])
    rows = rng.permutation(len(encoded))
    width = batch_size * WINDOW
    batches: list[np.ndarray] = []
    for start in range(0, len(rows), width):
        window = rows[start : start + width]
        window = window[np.argsort(encoded.lengths[window], kind="stable")]
        batches += [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def eval_order(encoded: Encoded, batch_size: int) -> list[np.ndarray]:
    """All rows in batches of like length, the longest first (memory problems show at once)."""
    rows = np.argsort(-encoded.lengths, kind="stable")
    return [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
