"""Gated ScaLearn: what its numbers mean, what is stored, what is dropped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_bank import add_sources, compose, hidden, settings_for
from torch import Tensor

from mtl.backbone.draws import one_step
from mtl.backbone.injection import bottleneck_layers
from mtl.compose.gated import GatedSettings
from mtl.errors import RequestError
from mtl.methods.source import as_source


def numbers(found: Any, seed: int = 5, order: Any = None) -> None:
    """Random gates and vectors, of the sources in ``order``."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in found.parameters.values():
            rows = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
            parameter.copy_(rows if order is None else rows[order])


def sites_of(encoder: Any) -> list[Any]:
    return [m for m in encoder.modules() if type(m).__name__ == "ScaLearnSite"]


def test_it_starts_as_the_uniform_form(encoder: Any, tokens: Any, jiggle: Any) -> None:
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    found = compose(encoder, names, "gated", init_std=0.0, start=0.5, open=9.0)
    assert {name: tuple(p.shape) for name, p in found.parameters.items()} == {
        "scales": (4, 1),
        "gates": (4, 1),
        "omega.0": (4, 48),
        "omega.1": (4, 48),
    }
    assert found.lr_factors == {"scales": 10.0, "gates": 10.0}
    gated = hidden(encoder.eval(), tokens)[-1]
    encoder.delete_adapter_fusion("composition")
    compose(encoder, names, "scalearn-uniform++", init_std=0.0)
    torch.testing.assert_close(gated, hidden(encoder.eval(), tokens)[-1])


def test_folded_is_looped(encoder: Any, jiggle: Any) -> None:
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    found = compose(encoder, names, "gated")
    encoder.double().eval()
    numbers(found)
    scales, logits, stored = found.parameters["scales"], found.parameters["gates"], found.tensors()
    layers = [layer for _, _, layer in bottleneck_layers(encoder) if layer.adapters]
    z = torch.randn(2, 3, 48, dtype=torch.float64, requires_grad=True)
    for number, (layer, site) in enumerate(zip(layers, sites_of(encoder), strict=True)):
        vectors = found.parameters[f"omega.{number}"]
        gates = scales * (1.2 / (1 + (-logits).exp()) - 0.1).clamp(0, 1)
        whole: Any = 0.0
        for k, name in enumerate(names):
            source = as_source(layer.adapters[name], layer.adapters_config.get(name))
            up, bias = source.up()
            whole = whole + gates[k] * (1 + vectors[k]) * (source.features(z) @ up.t() + bias)
        torch.testing.assert_close(site(z), whole, rtol=0, atol=1e-12)
        torch.testing.assert_close(stored[f"omega.{number}"], gates * (1 + vectors))
        ours = torch.autograd.grad(site(z).square().sum(), [z, scales, logits, vectors])
        theirs = torch.autograd.grad(whole.square().sum(), [z, scales, logits, vectors])
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


def test_the_order_of_sources_does_not_matter(
    backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    outputs = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        encoder = backbone.encoder()
        names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
        found = compose(encoder, [names[i] for i in order], "gated")
        encoder.double()
        numbers(found, order=order)
        outputs.append(hidden(encoder, tokens)[-1])
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)


def test_a_gate_at_zero_is_a_source_that_is_absent(
    backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    outputs = []
    for kept in ([0, 1, 2, 3], [0, 1, 3]):
        encoder = backbone.encoder()
        names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
        whole = [names[i] for i in kept]
        found = compose(encoder, whole, "gated")
        encoder.double()
        with torch.no_grad():
            for name, parameter in found.parameters.items():
                rows = torch.full((4, 48), 0.5)
                if not name.startswith("omega"):
                    rows = torch.tensor([[1.0], [0.5], [-3.0], [2.0]])  # 1.2·sigmoid(-3) < 0.1
                parameter.copy_(rows[kept])
        outputs.append(hidden(encoder, tokens)[-1])
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)


def test_what_is_stored_answers_the_same(
    backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    encoder = backbone.encoder()
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    found = compose(encoder, names, "gated")
    numbers(found)
    stored = found.tensors()
    assert set(stored) == {"omega.0", "omega.1"}
    again = backbone.encoder()
    loaded = compose(again, add_sources(again, settings_for("pfeiffer"), jiggle), "gated")
    loaded.load(stored)
    assert torch.equal(hidden(encoder.eval(), tokens)[-1], hidden(again.eval(), tokens)[-1])
    assert all(torch.equal(loaded.tensors()[name], value) for name, value in stored.items())


def test_a_step_has_one_noise_everywhere(encoder: Any, jiggle: Any) -> None:
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    compose(encoder, names, "gated", init_std=0.0, open=0.0)
    first, second = sites_of(encoder)
    encoder.train()
    drawn = []
    for _ in range(200):
        with one_step():
            one = first.effective()
            assert torch.equal(one, second.effective())
        drawn.append(one[:, 0])
    whole = torch.stack(drawn)
    assert len({tuple(row.tolist()) for row in whole}) > 150
    assert 0 < (whole == 0).double().mean() < 0.5  # shut, half open, open
    assert 0 < (whole == 1).double().mean() < 0.5
    encoder.eval()
    assert torch.equal(first.effective(), torch.full((4, 48), 0.5))


def test_the_penalty_is_the_expected_number_of_open_gates(encoder: Any, jiggle: Any) -> None:
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    found = compose(encoder, names, "gated", l0=0.5, open=0.3)
    (penalty,) = found.penalties
    encoder.train()
    shut = torch.stack([sites_of(encoder)[0].effective()[:, 0] == 0 for _ in range(4000)])
    share = 1 - float(shut.double().mean())
    assert penalty()["l0"].item() == pytest.approx(0.5 * 4 * share, rel=0.03)
    assert compose_without(encoder, names).penalties == ()


def compose_without(encoder: Any, names: list[str]) -> Any:
    encoder.delete_adapter_fusion("composition")
    return compose(encoder, names, "gated", l0=0.0)


@pytest.mark.parametrize(
    "wrong",
    [{"gate_rate": 0.0}, {"l0": -1.0}, {"dropout": 1.0}, {"init_std": -1.0}],
)
def test_settings_that_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RequestError, match=next(iter(wrong))):
        GatedSettings(**wrong)
