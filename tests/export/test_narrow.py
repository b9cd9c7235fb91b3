"""Fewer units: least squares by hand, redundant units, padding, the curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from export_bench import composed, sources
from torch import Tensor

from mtl.backbone import Network, build_head
from mtl.export.curve import NAME, Narrowing
from mtl.export.folding import Folded, Maps, fold
from mtl.export.narrow import Moments, feature_moments, narrow_site, unit_order, widths
from mtl.export.stock import install

S, D, N = 12, 8, 400


@pytest.fixture
def site() -> tuple[Maps, Tensor]:
    """A site and the features of N tokens: relu, correlated, one unit dead."""
    generator = torch.Generator().manual_seed(4)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    down = draw(S, 3) @ draw(3, D)
    down_bias = draw(S)
    down_bias[5] = -1e6
    maps = Maps(down, down_bias, draw(D, S), draw(D), torch.zeros(S, dtype=torch.long))
    return maps, (draw(N, D) @ down.t() + down_bias).relu()


def moments_of(features: Tensor) -> Moments:
    centred = features - features.mean(0)
    return Moments(features.mean(0), centred.t() @ centred / len(features), len(features))


def error(maps: Maps, units: Tensor, narrowed: Maps, features: Tensor) -> float:
    full = features @ maps.up.t() + maps.up_bias
    kept = features[:, units] @ narrowed.up.t() + narrowed.up_bias
    return float((full - kept).square().sum(1).mean())


def test_refit_is_the_least_squares_fit(site: tuple[Maps, Tensor]) -> None:
    maps, features = site
    moments = moments_of(features)
    order = unit_order(maps, moments, "refit")
    full = (features @ maps.up.t() + maps.up_bias).numpy()
    for width in range(1, len(order) + 1):
        narrowed = narrow_site(maps, moments, order, width, "refit")
        x = np.c_[features[:, order[:width]].numpy(), np.ones(N)]
        best, *_ = np.linalg.lstsq(x, full, rcond=None)
        expected = ((full - x @ best) ** 2).sum(1).mean()
        found = error(maps, order[:width], narrowed, features)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert narrowed.width == width


def test_every_next_unit_is_the_best_next_one(site: tuple[Maps, Tensor]) -> None:
    maps, features = site
    order = unit_order(maps, moments_of(features), "refit").tolist()
    full = (features @ maps.up.t()).numpy()

    def left(units: list[int]) -> float:
        x = np.c_[features[:, units].numpy(), np.ones(N)]
        return float(((full - x @ np.linalg.lstsq(x, full, rcond=None)[0]) ** 2).sum())

    for width in range(1, 5):
        others = [u for u in range(S) if u not in order[: width - 1]]
        errors = {unit: left([*order[: width - 1], unit]) for unit in others}
        assert min(errors, key=errors.__getitem__) == order[width - 1]


def test_dropped_units_leave_their_mean(site: tuple[Maps, Tensor]) -> None:
    maps, features = site
    moments = moments_of(features)
    order = unit_order(maps, moments, "drop")
    effect = features.var(0, unbiased=False) * maps.up.square().sum(0)
    assert order.tolist() == effect.argsort(descending=True)[: len(order)].tolist()
    narrowed = narrow_site(maps, moments, order, 4, "drop")
    replaced = features.mean(0).expand(N, S).clone()
    replaced[:, order[:4]] = features[:, order[:4]]
    torch.testing.assert_close(
        features[:, order[:4]] @ narrowed.up.t() + narrowed.up_bias,
        replaced @ maps.up.t() + maps.up_bias,
    )
    assert torch.equal(narrowed.up, maps.up[:, order[:4]])


def test_dead_units_go_first_and_refit_is_never_worse(site: tuple[Maps, Tensor]) -> None:
    maps, features = site
    moments = moments_of(features)
    orders = {how: unit_order(maps, moments, how) for how in ("refit", "drop")}
    assert 5 not in orders["refit"].tolist()
    assert 5 not in orders["drop"].tolist()
    last = float("inf")
    for width in range(1, 11):
        found = {
            how: error(maps, o[:width], narrow_site(maps, moments, o, width, how), features)
            for how, o in orders.items()
        }
        assert found["refit"] <= found["drop"] + 1e-9
        assert found["refit"] <= last + 1e-9
        last = found["refit"]


def test_units_that_are_there_twice_cost_nothing(
    backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    """Two sources with the same down map fold into twice the units; half of them will do."""
    encoder = backbone.encoder()
    entries = sources(encoder, [("pfeiffer", {"bottleneck": 5})] * 2, jiggle)
    loaded, _ = composed(encoder, entries)
    folded = fold(loaded)
    doubled = Folded(
        {
            key: Maps(
                torch.cat([m.down[:5]] * 2),
                torch.cat([m.down_bias[:5]] * 2),
                m.up,
                m.up_bias,
                m.owner,
            )
            for key, m in folded.sites.items()
        },
        folded.activation,
        folded.placement,
    )
    from mtl.export.narrow import narrow

    network = built(backbone, doubled)
    moments = feature_moments(network, NAME, [tokens])
    orders = {k: unit_order(m, moments[k], "refit") for k, m in doubled.sites.items()}
    assert all(len(order) <= 5 for order in orders.values())
    half = narrow(doubled, moments, orders, 5, "refit")
    assert half.width <= 5
    with torch.no_grad():
        difference = (built(backbone, half)(tokens) - network(tokens)).abs().max()
    assert difference < 1e-9


def built(backbone: Any, folded: Folded) -> Network:
    encoder = backbone.encoder().double()
    install(encoder, folded, NAME)
    torch.manual_seed(0)  # one head for all
    return Network(encoder, build_head("two_layer", encoder.config, 2, pooler=True).double()).eval()


def test_moments_are_those_of_the_real_tokens(
    backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    encoder = backbone.encoder()
    loaded, _ = composed(encoder, sources(encoder, [("pfeiffer", {"bottleneck": 3})] * 2, jiggle))
    network = built(backbone, fold(loaded))
    together = feature_moments(network, NAME, [tokens])
    lengths = tokens["attention_mask"].sum(1).tolist()
    ones = [
        {name: value[row : row + 1, :length] for name, value in tokens.items()}
        for row, length in enumerate(lengths)
    ]
    apart = feature_moments(network, NAME, ones)
    assert together.keys() == apart.keys()
    assert len(together) == 2
    for key, found in together.items():
        assert found.tokens == int(tokens["attention_mask"].sum()) == apart[key].tokens
        torch.testing.assert_close(found.mean, apart[key].mean)
        torch.testing.assert_close(found.covariance, apart[key].covariance)


def test_widths_are_two_per_halving() -> None:
    assert widths(64, 8) == [64, 45, 32, 23, 16, 11, 8]
    assert widths(10, 9) == [10, 9]
    assert widths(144, 4)[-1] == 4


@pytest.mark.parametrize(
    "values", [{"width": 0}, {"width": 3, "tolerance": -1.0}, {"width": 3, "how": "x"}]
)
def test_settings_are_checked(values: dict[str, Any]) -> None:
    from mtl.errors import RequestError

    with pytest.raises(RequestError):
        Narrowing(**values)
