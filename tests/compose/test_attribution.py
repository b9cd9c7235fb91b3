"""What sources contribute: Shapley values against the formula, blocks that are switched off."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mtl.backbone.injection import bottleneck_layers
from mtl.compose import COMPOSITIONS
from mtl.compose.attribution import passes_needed, shapley_values, switched_off
from mtl.compose.sites import site_keys
from mtl.errors import RequestError
from mtl.methods import METHODS, source_names
from mtl.methods.base import attach, make_settings

Game = Callable[[frozenset[int]], float]


def over_all_orders(count: int, value: Game) -> np.ndarray:
    """The Shapley value by its definition: the mean gain over all K! orders of entering."""
    found = np.zeros(count)
    for order in itertools.permutations(range(count)):
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            found[player] += value(before | {player}) - value(before)
    return found / math.factorial(count)


def random_game(seed: int) -> Game:
    table: dict[frozenset[int], float] = {}
    rng = np.random.default_rng(seed)

    def value(coalition: frozenset[int]) -> float:
        return table.setdefault(coalition, float(rng.normal()))

    return value


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_exact_values_are_the_mean_over_all_orders(count: int) -> None:
    game = random_game(count)
    found = shapley_values(count, game)
    assert found.exact
    assert found.errors is None
    assert found.passes == 2**count
    np.testing.assert_allclose(found.values, over_all_orders(count, game), atol=1e-12)
    everyone = frozenset(range(count))
    assert found.values.sum() == pytest.approx(game(everyone) - game(frozenset()))


def test_the_glove_game() -> None:
    # players 0 and 1 hold left gloves, 2 a right one; a pair is worth 1: (1/6, 1/6, 4/6)
    found = shapley_values(3, lambda s: float(2 in s and len(s) > 1))
    np.testing.assert_allclose(found.values, [1 / 6, 1 / 6, 4 / 6])


def test_sampled_values_are_near_and_their_error_is_honest() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=10)

    def game(coalition: frozenset[int]) -> float:  # pairs interact, so orders matter
        chosen = sorted(coalition)
        total = sum(weight[i] for i in chosen)
        return total + sum(
            0.3 * weight[i] * weight[j] for i, j in itertools.combinations(chosen, 2)
        )

    # of a game of pairs: a player's own worth and half of each of its pairs
    wanted = np.array(
        [weight[i] + 0.15 * weight[i] * (weight.sum() - weight[i]) for i in range(10)]
    )
    found = shapley_values(10, game, orders=3)
    assert not found.exact
    np.testing.assert_allclose(found.values, wanted, atol=1e-9)  # forwards and backwards: exact
    assert found.errors is not None
    np.testing.assert_allclose(found.errors, 0, atol=1e-9)

    def harder(coalition: frozenset[int]) -> float:
        return math.tanh(game(coalition))

    many = shapley_values(10, harder, orders=400, seed=1)
    few = shapley_values(10, harder, orders=40, seed=2)
    assert few.errors is not None
    assert many.errors is not None
    spread = np.sqrt(few.errors**2 + many.errors**2)
    assert (np.abs(few.values - many.values) < 4 * spread + 1e-9).all()
    assert few.values.sum() == pytest.approx(harder(frozenset(range(10))) - harder(frozenset()))
    again = shapley_values(10, harder, orders=40, seed=2)
    np.testing.assert_array_equal(again.values, few.values)
    with pytest.raises(RequestError, match="at least 2"):
        shapley_values(10, harder, orders=1)


def test_how_many_passes() -> None:
    plain = {"per_layer": False, "layers": 6, "orders": 4}
    assert passes_needed(3, shapley=True, **plain) == 8
    assert passes_needed(3, shapley=False, **plain) == 5
    assert passes_needed(3, shapley=False, per_layer=True, layers=6, orders=4) == 23
    assert passes_needed(20, shapley=True, **plain) == 22 + 8 * 19


@pytest.mark.parametrize("method", ["scalearn", "scalearn-uniform++", "average", "fusion"])
def test_a_switched_off_source_gives_nothing(
    method: str, encoder: Any, tokens: Any, jiggle: Any
) -> None:
    pfeiffer = METHODS.get("pfeiffer")
    settings = make_settings("pfeiffer", pfeiffer.settings, {"reduction_factor": 4.0})
    names = source_names(3)
    for number, name in enumerate(names):
        attach(encoder, pfeiffer, settings, name)
        for _, _, layer in bottleneck_layers(encoder):
            if name in layer.adapters:
                jiggle(layer.adapters[name].parameters(), seed=number)
    composition = COMPOSITIONS.get(method)
    chosen = make_settings(method, composition.settings, dict(composition.defaults))
    torch.manual_seed(0)
    composed = composition.attach(encoder, names, chosen)
    jiggle(composed.parameters.values(), 0.5, seed=9)
    encoder.eval()
    sites = site_keys(encoder)

    def answer(off: dict[str, frozenset[int]]) -> torch.Tensor:
        with torch.no_grad(), switched_off(sites, off), composed.evaluating():
            return encoder(**tokens).last_hidden_state

    whole = answer({})
    off = answer(dict.fromkeys(sites, frozenset({1})))
    assert not torch.allclose(off, whole, atol=1e-4)
    # the same with the source itself at zero
    spoilt = {}
    for key, site in sites.items():
        rows = site.bank.owner == 1
        spoilt[key] = (site.bank.up[rows].clone(), site.bank.bias[1].clone())
        site.bank.up[rows] = 0
        site.bank.bias[1] = 0
    torch.testing.assert_close(answer({}), off)
    for key, site in sites.items():
        site.bank.up[site.bank.owner == 1], site.bank.bias[1] = spoilt[key]
    torch.testing.assert_close(answer({}), whole, rtol=0, atol=0)  # nothing is left behind
    one_layer = answer({"0": frozenset({1})})
    assert not torch.allclose(one_layer, off, atol=1e-4)
    assert not torch.allclose(one_layer, whole, atol=1e-4)


def test_all_sources_off_is_the_plain_encoder(
    encoder: Any, backbone: Any, tokens: Any, jiggle: Any
) -> None:
    pfeiffer = METHODS.get("pfeiffer")
    settings = make_settings("pfeiffer", pfeiffer.settings, {"reduction_factor": 4.0})
    names = source_names(2)
    for name in names:
        attach(encoder, pfeiffer, settings, name)
    composition = COMPOSITIONS.get("scalearn")
    composed = composition.attach(encoder, names, composition.settings())
    jiggle(composed.parameters.values(), 0.5)
    encoder.eval()
    sites = site_keys(encoder)
    with (
        torch.no_grad(),
        switched_off(sites, dict.fromkeys(sites, frozenset({0, 1}))),
        composed.evaluating(),
    ):
        found = encoder(**tokens).last_hidden_state
    with torch.no_grad():
        plain = backbone.pristine(**tokens).last_hidden_state
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
