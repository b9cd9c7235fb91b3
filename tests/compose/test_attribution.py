"""What sources contribute: Shapley values against the formula, blocks that are switched off."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from mtl.backbone.injection import bottleneck_layers
from mtl.compose import COMPOSITIONS, attribution
from mtl.compose.attribution import chosen_layers, passes_needed, switched_off
from mtl.compose.shapley import shapley_values
from mtl.compose.sites import site_keys
from mtl.errors import RequestError
from mtl.methods import METHODS, source_names
from mtl.methods.method import attach, make_settings

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


@pytest.mark.parametrize("shapley", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("layers", [[], ["1"], ["0", "1"]])
def test_as_many_passes_as_were_said(
    count: int, layers: list[str], shapley: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real loop over sites without blocks, counted; an upper bound where orders are drawn."""
    sites = {key: SimpleNamespace(bank=SimpleNamespace(count=count)) for key in "01"}
    monkeypatch.setattr(attribution, "site_keys", lambda encoder: sites)
    seen: list[dict[str, frozenset[int]]] = []

    @contextmanager
    def switched(found: Any, off: dict[str, frozenset[int]]) -> Iterator[None]:
        seen.append(off)
        yield

    monkeypatch.setattr(attribution, "switched_off", switched)
    monkeypatch.setattr(attribution, "evaluate", lambda *_: evaluation(len(seen)))
    told: list[int] = []
    found = attribution.attribute(
        MagicMock(), data_of("m"), MagicMock(),
        shapley=shapley, layers=layers, orders=2, progress=told.append,
    )  # fmt: skip
    said = passes_needed(count, shapley=shapley, layers=len(layers), orders=2)
    assert len(seen) == found.passes == sum(told)
    if shapley and count > 8:
        assert said - 10 * (1 + len(layers)) <= found.passes <= said
    else:
        assert found.passes == said
    looks = [tuple(sorted((k, tuple(sorted(v))) for k, v in off.items())) for off in seen]
    assert len(looks) == len(set(looks))  # nothing is evaluated twice


def evaluation(value: float) -> Any:
    return SimpleNamespace(metrics={"m": float(value)}, row=np.arange(3))


def data_of(metric: str) -> Any:
    return SimpleNamespace(
        spec=SimpleNamespace(headline=metric), encoded=SimpleNamespace(name="dev")
    )


@pytest.mark.parametrize("method", ["scalearn", "fusion"])
def test_the_axioms_hold_layer_by_layer(
    method: str, encoder: Any, tokens: Any, jiggle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources 0 and 1 are equal, 2 gives nothing, 3 is another one; the metric is continuous."""
    pfeiffer = METHODS.get("pfeiffer")
    settings = make_settings("pfeiffer", pfeiffer.settings, {"reduction_factor": 4.0})
    names = source_names(4)
    for name, seed in zip(names, (5, 5, 6, 7), strict=True):
        attach(encoder, pfeiffer, settings, name)
        for _, _, layer in bottleneck_layers(encoder):
            if name in layer.adapters:
                jiggle(layer.adapters[name].parameters(), seed=seed)
    composition = COMPOSITIONS.get(method)
    composed = composition.attach(encoder, names, composition.settings())
    if method == "scalearn":  # equal sources are only equal players under equal weights
        for number, omega in enumerate(composed.parameters.values()):
            jiggle([omega], 0.5, seed=number)
            with torch.no_grad():
                omega[1] = omega[0]
    encoder.eval()
    for site in site_keys(encoder).values():
        site.bank.up[site.bank.owner == 2] = 0
        site.bank.bias[2] = 0

    def measure(*_: Any) -> Any:
        with torch.no_grad(), composed.evaluating():
            states = encoder(**tokens).last_hidden_state
        return evaluation(float(states[:, 0].double().tanh().sum()))

    monkeypatch.setattr(attribution, "evaluate", measure)
    built: Any = SimpleNamespace(network=MagicMock(encoder=encoder), attached=None)
    found = attribution.attribute(built, data_of("m"), MagicMock(), layers=["all"])
    assert list(found.layers) == list(found.layer_shapley) == list(site_keys(encoder)) == ["0", "1"]
    for layer, shapley in found.layer_shapley.items():
        values = shapley.values
        off = {layer: frozenset(range(4))}
        with switched_off(site_keys(encoder), off):
            assert found.layer_empty[layer] == measure().metrics["m"]
        # efficiency: what all sources of this layer give together, all other layers as trained
        assert values.sum() == pytest.approx(found.whole - found.layer_empty[layer], abs=1e-9)
        assert values[0] == pytest.approx(values[1], rel=1e-4)  # symmetry
        assert abs(values[2]) < 1e-6  # dummy
        assert abs(values[0]) > 1e-3
        assert abs(values[3]) > 1e-3
        assert found.layers[layer][3] == pytest.approx(
            found.whole - layer_without(3, layer, encoder, measure)
        )
    (one, two) = (value.values for value in found.layer_shapley.values())
    assert not np.allclose(one, two, atol=1e-3)
    assert found.shapley is not None
    assert not np.allclose(one + two, found.shapley.values, atol=1e-4)  # another question


def layer_without(source: int, layer: str, encoder: Any, measure: Callable[[], Any]) -> float:
    with switched_off(site_keys(encoder), {layer: frozenset({source})}):
        return float(measure().metrics["m"])


def test_which_layers() -> None:
    plain, two = ["0", "1", "11"], ["0.mh_adapter", "0.output_adapter", "1.mh_adapter"]
    assert chosen_layers(plain, ["all"]) == plain
    assert chosen_layers(plain, ["11", "0"]) == ["0", "11"]
    assert chosen_layers(two, ["0"]) == two[:2]
    assert chosen_layers(two, ["1.mh_adapter"]) == two[2:]
    with pytest.raises(RequestError, match="layer '2'"):
        chosen_layers(plain, ["2"])


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
