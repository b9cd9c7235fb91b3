"""The order of batches and their pieces: pure, complete, drawn at random, with little padding."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtl.data import Passes, cut, eval_order, train_order


def encoded(rows: int, seed: int = 0, choices: int = 1) -> Any:
    lengths = np.random.default_rng(seed).integers(3, 60, rows)
    fake = type("Fake", (SimpleNamespace,), {"__len__": lambda self: rows})
    return fake(lengths=lengths, tokens_per_row=lengths * choices)


def flat(batches: list[np.ndarray]) -> list[int]:
    return [int(row) for batch in batches for row in batch]


@pytest.mark.parametrize(("rows", "size"), [(1, 8), (7, 8), (8, 8), (1000, 8), (1601, 16)])
def test_every_row_once(rows: int, size: int) -> None:
    data = encoded(rows)
    for batches in (train_order(data, size, 3, 2), eval_order(data, Passes(rows=size))):
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


@pytest.mark.parametrize("rows", [66, 300, 1600, 5000])
def test_rows_that_shared_a_batch_meet_again_as_often_as_chance_says(rows: int) -> None:
    """Lengths do not decide who meets whom: it was 0.82 to 0.90 at 300 rows, chance is 0.10."""
    data, size = encoded(rows), 32
    data.lengths.sort()  # the harder case: like lengths stand together in the file
    again = []
    for seed, (one, two) in itertools.product(range(4), ((0, 1), (1, 2), (4, 9))):
        place = np.empty(rows, dtype=np.int64)
        for number, batch in enumerate(train_order(data, size, seed, two)):
            place[batch] = number
        pairs = [
            place[a] == place[b]
            for batch in train_order(data, size, seed, one)
            for a, b in itertools.combinations(batch, 2)
        ]
        again.append(np.mean(pairs))
    counts = [len(batch) for batch in train_order(data, size, 0, 0)]
    chance = sum(n * (n - 1) for n in counts) / (rows * (rows - 1))
    assert np.mean(again) == pytest.approx(chance, rel=0.15)


def test_batches_are_a_uniform_draw_whatever_the_lengths() -> None:
    data, size = encoded(640), 16
    means = np.array([data.lengths[rows].mean() for rows in train_order(data, size, 0, 0)])
    # the spread of the means of uniform draws; sorted by length it was three times as large
    assert means.std() == pytest.approx(data.lengths.std() / np.sqrt(size), rel=0.35)


@pytest.mark.parametrize("overhead", [0, 5, 40, 1e18])
@pytest.mark.parametrize("most", [0, 1, 3])
def test_cutting_finds_the_cheapest_pieces(overhead: float, most: int) -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        tokens = rng.integers(3, 60, 9)
        pieces = cut(tokens, overhead, most)
        assert sorted(flat(pieces)) == list(range(9))
        longest = [int(tokens[piece].max()) for piece in pieces]
        assert longest == sorted(longest, reverse=True)

        def cost(groups: Any, tokens: np.ndarray = tokens) -> float:
            return sum(overhead + len(group) * tokens[group].max() for group in groups)

        order = np.argsort(-tokens)
        cheapest = min(
            cost(np.split(order, [at + 1 for at in range(8) if places >> at & 1]))
            for places in range(1 << 8)
            if not most
            or max(map(len, np.split(order, [a + 1 for a in range(8) if places >> a & 1]))) <= most
        )
        assert cost(pieces) == pytest.approx(cheapest)


def test_a_limit_of_tokens_goes_by_the_longest_of_each_piece() -> None:
    tokens = np.array([100, 10, 10, 10, 10, 10, 10, 10, 10, 30])
    pieces = cut(tokens, 1000.0, most_tokens=100)  # a pass is dear: as few as the limit allows
    assert [tokens[piece].tolist() for piece in pieces] == [[100], [30], [10] * 8]
    assert [len(piece) for piece in cut(tokens, 1000.0, 4, most_tokens=100)] == [1, 1, 4, 4]
    assert [len(piece) for piece in cut(tokens[1:9], 0.0, most_tokens=40)] == [4, 4]
    assert [len(piece) for piece in cut(tokens, 0.0, most_tokens=5)] == [
        1
    ] * 10  # longer ones go alone
    rng = np.random.default_rng(0)
    for _ in range(20):
        tokens = rng.integers(1, 60, 25)
        pieces = cut(tokens, 40.0, most_tokens=128)
        assert sorted(np.concatenate(pieces).tolist()) == list(range(25))
        assert all(len(piece) * tokens[piece].max() <= 128 for piece in pieces)


def test_pieces_save_the_padding_that_a_random_batch_has() -> None:
    data = encoded(4000)
    batches = train_order(data, 32, 0, 0)

    def padding(groups: list[np.ndarray]) -> float:
        return sum(len(g) * data.lengths[g].max() for g in groups) / data.lengths.sum() - 1

    pieces = [rows[piece] for rows in batches for piece in cut(data.lengths[rows], 64.0)]
    assert padding(batches) > 0.7
    assert padding(pieces) < 0.25
    assert len(pieces) < 5 * len(batches)


def test_nothing_is_cut_where_it_saves_nothing() -> None:
    assert [list(piece) for piece in cut(np.array([5, 5, 5]), 0.0)] == [[0, 1, 2]]
    assert [list(piece) for piece in cut(np.array([5, 9, 5]), 100.0)] == [[1, 0, 2]]
    assert cut(np.array([], dtype=np.int64), 1.0) == []


def test_eval_order_starts_with_the_longest_and_is_stable() -> None:
    data = encoded(100)
    order = flat(eval_order(data, Passes(rows=8)))
    assert order == sorted(range(100), key=lambda row: (-data.lengths[row], row))


def test_evaluation_goes_by_tokens() -> None:
    data = encoded(300, choices=2)
    batches = eval_order(data, Passes(tokens=256))
    assert sorted(flat(batches)) == list(range(300))
    sizes = [len(rows) * 2 * data.lengths[rows].max() for rows in batches]
    assert max(sizes) <= 256
    assert np.median(sizes) > 200  # the last of a length is the exception
    assert [len(rows) for rows in eval_order(data, Passes(tokens=1))] == [1] * 300
    assert max(len(rows) for rows in eval_order(data, Passes(tokens=256, rows=4))) == 4
    assert len(eval_order(data, Passes())) == 1
