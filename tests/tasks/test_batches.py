"""The order of batches: pure, complete, with little padding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtl.tasks import eval_order, train_order


def encoded(rows: int, seed: int = 0) -> Any:
    lengths = np.random.default_rng(seed).integers(3, 60, rows)
    return type("Fake", (SimpleNamespace,), {"__len__": lambda self: rows})(lengths=lengths)


def flat(batches: list[np.ndarray]) -> list[int]:
    return [int(row) for batch in batches for row in batch]


@pytest.mark.parametrize(("rows", "size"), [(1, 8), (7, 8), (8, 8), (1000, 8), (1601, 16)])
def test_every_row_once(rows: int, size: int) -> None:
    data = encoded(rows)
    for batches in (train_order(data, size, 3, 2), eval_order(data, size)):
        assert sorted(flat(batches)) == list(range(rows))
        assert len(batches) == -(-rows // size)
        assert sum(len(batch) < size for batch in batches) <= 1


def test_train_order_is_a_function_of_seed_and_epoch() -> None:
    data = encoded(500)
    first = flat(train_order(data, 8, 1, 1))
    np.random.seed(5)
    np.random.rand(3)
    assert first == flat(train_order(data, 8, 1, 1))
    others = [flat(train_order(data, 8, *key)) for key in ((1, 2), (2, 1), (10, 1), (1, 10))]
    assert len({tuple(order) for order in [first, *others]}) == 5


def test_train_batches_hold_rows_of_like_length() -> None:
    data = encoded(4000)

    def padding(batches: list[np.ndarray]) -> float:
        padded = sum(len(rows) * data.lengths[rows].max() for rows in batches)
        return 1 - data.lengths.sum() / padded

    rows = np.random.default_rng(0).permutation(4000)
    plain = padding([rows[at : at + 16] for at in range(0, 4000, 16)])
    assert padding(train_order(data, 16, 0, 0)) < 0.05 < plain
    means = [data.lengths[batch].mean() for batch in train_order(data, 16, 0, 0)]
    assert abs(np.corrcoef(range(len(means)), means)[0, 1]) < 0.2  # short ones are not first


def test_eval_order_starts_with_the_longest_and_is_stable() -> None:
    data = encoded(100)
    order = flat(eval_order(data, 8))
    assert order == sorted(range(100), key=lambda row: (-data.lengths[row], row))
