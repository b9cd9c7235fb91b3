"""Twins without information: what they keep, what they lose, and what they are drawn by."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mtl.backbone.injection import bottleneck_layers
from mtl.compose.composition import COMPOSITIONS
from mtl.compose.control import CONTROLS, check_control, control_for, read_control
from mtl.compose.modules.twins import replace_by_twin, twin_of
from mtl.compose.sources import composable
from mtl.errors import RequestError
from mtl.methods import METHODS, source_names
from mtl.methods.low_rank import Factors
from mtl.methods.method import attach, make_settings
from mtl.methods.modules.low_rank import add_source, low_rank_sources
from mtl.methods.source import CoreSource, PlainSource, as_source


@pytest.fixture
def source() -> PlainSource:
    draw = torch.Generator().manual_seed(1)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw) + 0.3

    return PlainSource(some(4, 24), some(4), "relu", some(24, 4), some(24))


def tensors(source: Any) -> dict[str, Tensor]:
    return {
        item.name: value
        for item in fields(source)
        if isinstance(value := getattr(source, item.name), Tensor)
    }


@pytest.mark.parametrize("how", CONTROLS)
def test_a_twin_has_the_norms_and_not_the_values(source: PlainSource, how: str) -> None:
    twin = twin_of(source, how, "key")
    for name, value in tensors(source).items():
        other = getattr(twin, name)
        assert other.shape == value.shape
        assert other.dtype == value.dtype
        assert torch.allclose(other.norm(), value.norm(), rtol=1e-5)
        assert name == "down_bias" or not torch.allclose(other, value, atol=0.1)
    assert twin.activation == "relu"


def test_what_each_kind_keeps(source: PlainSource) -> None:
    permuted, gaussian, rotated = (twin_of(source, how, "key") for how in CONTROLS)
    for name, value in tensors(source).items():
        assert torch.equal(
            getattr(permuted, name).flatten().sort().values, value.flatten().sort().values
        )
        other = getattr(gaussian, name)
        assert torch.allclose(other.mean(), value.mean(), atol=1e-6)
        assert torch.allclose(other.std(), value.std(), rtol=1e-5)
    for name in ("down", "up_weight"):
        singular = torch.linalg.svdvals(getattr(source, name))
        assert torch.allclose(torch.linalg.svdvals(getattr(rotated, name)), singular, rtol=1e-5)
    assert torch.equal(rotated.down_bias, source.down_bias)
    # one rotation P turns weight and bias of the output alike, and Q the input: P f(Qᵀz)
    inside = torch.linalg.lstsq(source.up_weight, source.up_bias[:, None]).solution
    turned = torch.linalg.lstsq(rotated.up_weight, rotated.up_bias[:, None]).solution
    assert torch.allclose(inside, turned, atol=1e-4)


@pytest.mark.parametrize("how", CONTROLS)
def test_a_twin_is_a_function_of_its_key(source: PlainSource, how: str) -> None:
    again = twin_of(replace(source), how, "key")
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            tensors(twin_of(source, how, "key")).values(), tensors(again).values(), strict=True
        )
    )
    assert not torch.allclose(twin_of(source, how, "other").down, again.down, atol=0.1)


def test_the_twins_are_these_for_ever() -> None:
    """Stored controls are drawn again when they are loaded: another draw would break them."""
    source = Factors(torch.arange(6.0).view(2, 3), torch.arange(4.0).view(2, 2))
    assert twin_of(source, "permuted", "key").down.tolist() == PERMUTED
    drawn = twin_of(source, "gaussian", "key").up.flatten().tolist()
    assert drawn == pytest.approx([x for row in GAUSSIAN for x in row], abs=1e-6)


@pytest.mark.parametrize("how", CONTROLS)
@pytest.mark.parametrize("name", composable())
def test_every_bottleneck_has_a_twin(encoder: Any, name: str, how: str, jiggle: Any) -> None:
    method = METHODS.get(name)
    if method.composes != "bottleneck":
        pytest.skip("deltas have a test of their own")
    settings = make_settings(name, method.settings, dict(method.defaults))
    tuned = attach(encoder, method, settings, "s")
    jiggle(tuned.parameters.values(), 0.2, seed=0)
    if method.as_source is not None:
        method.as_source(encoder, settings, "s")
    layers = [layer for _, _, layer in bottleneck_layers(encoder) if "s" in layer.adapters]
    z = torch.randn(1, 3, encoder.config.hidden_size)

    def answers() -> list[Tensor]:
        found = [as_source(x.adapters["s"], x.adapters_config.get("s")) for x in layers]
        with torch.no_grad():
            return [source.features(z) @ source.up()[0].t() + source.up()[1] for source in found]

    before = answers()
    replace_by_twin(encoder, "s", how, "key")
    for own, twin in zip(before, answers(), strict=True):
        assert (own - twin).norm() > 0.3 * own.norm()


def test_what_has_no_twin_is_refused(encoder: Any) -> None:
    own = CoreSource(torch.nn.Identity(), torch.zeros(4, 4), torch.zeros(4))
    with pytest.raises(RequestError, match="modules of its own"):
        twin_of(own, "permuted", "key")
    with pytest.raises(RequestError, match="no site"):
        replace_by_twin(encoder, "nobody", "permuted", "key")


def test_a_delta_has_a_twin(encoder: Any) -> None:
    size = encoder.config.hidden_size
    add_source(encoder, "s", {"0.q": Factors(torch.randn(2, size), torch.randn(size, 2))})
    own = low_rank_sources(encoder)["s"]["0.q"]
    replace_by_twin(encoder, "s", "permuted", "key")
    twin = low_rank_sources(encoder)["s"]["0.q"]
    assert not torch.allclose(own.down, twin.down)
    assert torch.equal(own.down.flatten().sort().values, twin.down.flatten().sort().values)


def test_a_composition_sees_the_twin(encoder: Any, jiggle: Any) -> None:
    names = source_names(2)
    method = METHODS.get("pfeiffer")
    for index, name in enumerate(names):
        tuned = attach(encoder, method, make_settings("pfeiffer", method.settings, {}), name)
        jiggle(tuned.parameters.values(), 0.2, seed=index)
    layer = next(layer for _, _, layer in bottleneck_layers(encoder) if layer.adapters)
    kept, lost = (as_source(layer.adapters[n], layer.adapters_config.get(n)) for n in names)
    replace_by_twin(encoder, names[1], "permuted", "key")
    average = COMPOSITIONS.get("average")
    average.attach(encoder, names, average.settings(**average.defaults))
    (site,) = layer.adapter_fusion_layer.values()
    assert torch.equal(site.bank.bias[0], kept.up()[1])
    assert not torch.allclose(site.bank.bias[1], lost.up()[1])


def test_requests_for_controls() -> None:
    assert read_control("permuted") == ("permuted", None)
    assert read_control("rotated:7") == ("rotated", 7)
    assert control_for(None, search=True) == ""
    assert control_for("gaussian", search=False) == "gaussian"
    assert control_for("gaussian", search=True) == "gaussian:100"
    assert control_for("gaussian:3", search=True) == "gaussian:3"
    with pytest.raises(RequestError, match="Did you mean 'permuted'"):
        read_control("permutd")
    for wrong in ("permuted:", "permuted:-1", "permuted:x"):
        with pytest.raises(RequestError, match="must be a number"):
            read_control(wrong)
    check_control("", ["a"], "a")
    check_control("permuted", ["a", "b"], "a")
    with pytest.raises(RequestError, match="only source"):
        check_control("permuted", ["a"], "a")


PERMUTED = [[4.0, 2.0, 0.0], [1.0, 5.0, 3.0]]
GAUSSIAN = [[3.3632121, 1.3750781], [0.6625423, 0.5991673]]
