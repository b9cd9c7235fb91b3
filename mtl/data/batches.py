"""Which rows form which batch, and how a batch goes through the network: pure functions.

Who shares a batch with whom is drawn at random, whatever the lengths: an order that puts rows of
like length together lets the same rows meet again epoch after epoch, and trains worse
(docs/benchmarks.md). Padding is saved behind the draw instead: one batch is cut into pieces of
like length, whose gradients add up to the batch's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mtl.data.encoded import Encoded


@dataclass(frozen=True)
class Passes:
    """How much goes through the network at once in evaluation.

    Attributes:
        tokens: rows times the longest of them at most, padding included, 0 for no limit; a single
            row that is longer goes alone.
        rows: at most, 0 for no limit.
    """

    tokens: int = 0
    rows: int = 0


def train_order(encoded: Encoded, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch as row numbers: every row once, the last batch may be smaller.

    A uniform draw without replacement, new in every epoch; a pure function of its arguments.
    """
    rows = np.random.default_rng([seed, epoch]).permutation(len(encoded))
    return [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]


def cut(
    tokens: np.ndarray, overhead: float, most: int = 0, most_tokens: int = 0
) -> list[np.ndarray]:
    """Cut a batch into pieces of like length, at the least ``Σ_pieces overhead + n · longest``.

    Args:
        tokens: (B,) length of every row of the batch.
        overhead: what one more forward and backward pass costs, in tokens.
        most: rows per piece at most, 0 for no limit.
        most_tokens: rows times the longest of them at most, 0 for no limit; a single row that is
            longer goes alone.

    Returns:
        Places in the batch, the piece with the longest row first (memory problems show at once).
    """
    count = len(tokens)
    most = min(most or count, count)
    places = np.argsort(-tokens, kind="stable")
    whole = count * int(tokens.max(initial=0))
    limited = most < count or 0 < most_tokens < whole
    if not limited and whole - int(tokens.sum()) <= overhead:
        return [places] if count else []  # not even all of the padding is worth a second pass
    longest = tokens[places].astype(np.float64)
    cost = np.zeros(count + 1)
    end = np.zeros(count, dtype=np.int64)
    for start in range(count - 1, -1, -1):
        limit = max(1, most_tokens // int(longest[start])) if most_tokens else most
        sizes = np.arange(1, min(most, limit, count - start) + 1)
        total = sizes * longest[start] + cost[start + sizes]
        size = len(sizes) - int(np.argmin(total[::-1]))  # of equals the largest piece
        cost[start], end[start] = overhead + total[size - 1], start + size
    pieces, start = [], 0
    while start < count:
        pieces.append(places[start : end[start]])
        start = int(end[start])
    return pieces


def eval_order(
    encoded: Encoded, passes: Passes, chosen: np.ndarray | None = None
) -> list[np.ndarray]:
    """All rows, or ``chosen`` ones, in batches of like length, the longest first.

    Memory problems show at once. A batch holds as many rows as ``passes`` allows, at least one.
    """
    rows = np.arange(len(encoded.lengths)) if chosen is None else chosen
    rows = rows[np.argsort(-encoded.lengths[rows], kind="stable")]
    tokens = encoded.tokens_per_row[rows]
    most = passes.rows or len(rows)
    batches, start = [], 0
    while start < len(rows):
        size = most
        if passes.tokens:
            size = min(most, max(1, passes.tokens // max(int(tokens[start]), 1)))
        batches.append(rows[start : start + size])
        start += size
    return batches
