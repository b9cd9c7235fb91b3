"""Shapley values of a game of K players, exact or sampled.

``Σ_S |S|! (K−|S|−1)! / K! · (v(S ∪ {k}) − v(S))`` over the coalitions S without player k; summed
over the players it is v(K) − v(∅) (Shapley 1953). Exact by all 2^K coalitions up to K = 8; beyond,
the mean over random orders, each taken forwards and backwards, with its standard error (Mitchell et
al. 2022, JMLR 23, antithetic permutation sampling).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mtl.errors import RequestError

EXACT = 8
"""Sources up to which all coalitions are evaluated (2^8 = 256 passes over the split)."""

Coalition = frozenset[int]
Value = Callable[[Coalition], float]


@dataclass(frozen=True)
class Shapley:
    """Shapley values (K,), with standard errors where they were sampled.

    Attributes:
        passes: how many coalitions were evaluated.
        exact: whether all of them were.
    """

    values: np.ndarray
    errors: np.ndarray | None
    passes: int
    exact: bool


def shapley_values(count: int, value: Value, *, orders: int = 32, seed: int = 0) -> Shapley:
    """Shapley values of ``count`` players under ``value``, exact up to :data:`EXACT` players.

    ``value`` is called once per coalition that is needed; it may remember.
    """
    seen: set[Coalition] = set()

    def look(coalition: Coalition) -> float:
        seen.add(coalition)
        return value(coalition)

    if count <= EXACT:
        return Shapley(_exact(count, look), None, len(seen), True)
    values, errors = _sampled(count, look, orders, seed)
    return Shapley(values, errors, len(seen), False)


def _exact(count: int, value: Value) -> np.ndarray:
    found = np.zeros(count)
    for size in range(count):
        weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
        for members in combinations(range(count), size):
            coalition = frozenset(members)
            base = value(coalition)
            for player in range(count):
                if player not in coalition:
                    found[player] += weight * (value(coalition | {player}) - base)
    return found


def _sampled(count: int, value: Value, orders: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over pairs of an order and its reverse; the standard error is over the pairs."""
    if orders < 2:
        raise RequestError(f"--orders {orders}: an error needs at least 2 random orders.")
    rng = np.random.default_rng(seed)
    pairs = np.zeros((orders, count))
    for number in range(orders):
        order = rng.permutation(count)
        pairs[number] = (_walk(order, value) + _walk(order[::-1], value)) / 2
    return pairs.mean(0), pairs.std(0, ddof=1) / math.sqrt(orders)


def _walk(order: Sequence[Any] | np.ndarray, value: Value) -> np.ndarray:
    """Each player's gain on entering, in this order."""
    found = np.zeros(len(order))
    coalition: Coalition = frozenset()
    last = value(coalition)
    for player in map(int, order):
        coalition = coalition | {player}
        now = value(coalition)
        found[player] = now - last
        last = now
    return found
