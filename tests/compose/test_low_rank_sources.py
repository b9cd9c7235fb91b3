"""Low-rank sources under the ScaLearn family: against merged weights, looped sums, alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_bench import Calls
from torch import Tensor

from mtl.backbone import load_backbone
from mtl.backbone.linear import LINEARS, linear_sites
from mtl.compose.composition import COMPOSITIONS
from mtl.compose.count import count_composition
from mtl.compose.low_rank import LinearBank
from mtl.compose.sources import check_kinds
from mtl.errors import RequestError, ZooError
from mtl.methods import METHODS, attach, load, source_names
from mtl.methods.low_rank import Factors
from mtl.methods.modules.low_rank import add_source
from mtl.methods.pfeiffer import PfeifferSettings

FAMILY = ["scalearn", "scalearn-uniform", "scalearn++", "scalearn-uniform++", "average"]
RANKS = [4, 0, 7]


def factors(encoder: Any, rank: int, seed: int, modules: Any = LINEARS) -> dict[str, Factors]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        found = 0.2 * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return found.to(encoder.dtype)

    return {
        site: Factors(draw(rank, linear.in_features), draw(linear.out_features, rank))
        for site, linear in linear_sites(encoder, modules).items()
    }


def add_sources(
    encoder: Any, ranks: list[int], modules: Any = LINEARS
) -> dict[str, dict[str, Factors]]:
    found = {}
    for index, (name, rank) in enumerate(zip(source_names(len(ranks)), ranks, strict=True)):
        found[name] = factors(encoder, rank, index, modules)
        add_source(encoder, name, found[name])
    return found


def compose(encoder: Any, names: Any, method: str = "scalearn", **values: Any) -> Any:
    composition = COMPOSITIONS.get(method)
    settings = composition.settings(**{**composition.defaults, **values})
    return composition.attach(encoder, list(names), settings)


def last(encoder: Any, tokens: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return encoder(**tokens).last_hidden_state


def merged(encoder: Any, sources: Any, omegas: dict[str, Tensor]) -> Any:
    """A copy of the plain encoder with ``Σ omega_k ⊙ (up_k down_k)`` in its weights."""
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        for site, linear in linear_sites(other, LINEARS).items():
            omega = omegas.get(f"omega.{site}", omegas.get(f"omega.shared.{site[2:]}"))
            if omega is None:
                continue
            for row, source in zip(omega, sources.values(), strict=True):
                linear.weight += row.reshape(-1, 1) * (source[site].up @ source[site].down)
    return other


@pytest.mark.parametrize("kind", ["roberta", "bert", "xlm-roberta", "deberta-v2"])
@pytest.mark.parametrize("method", FAMILY)
def test_composed_is_the_hand_computed_sum(
    method: str, kind: str, tiny: Any, tokens: Any, jiggle: Any
) -> None:
    """All six modules, ranks 4, 0 and 7, fp64: the same network as with merged weights."""
    encoder = load_backbone(tiny(kind)).encoder().double()
    plain = copy.deepcopy(encoder)
    before = last(encoder, tokens)
    sources = add_sources(encoder, RANKS)
    assert torch.equal(last(encoder, tokens), before)  # sources alone change nothing
    found = compose(encoder, sources, method)
    encoder.double()
    jiggle(found.parameters.values(), 0.7)
    expected = last(merged(plain, sources, found.tensors()), tokens)
    torch.testing.assert_close(last(encoder, tokens), expected, rtol=0, atol=1e-11)
    assert (expected - before).abs().max() > 1e-2
    with found.evaluating():
        torch.testing.assert_close(last(encoder, tokens), expected, rtol=0, atol=1e-11)
    fill = torch.zeros(3, 1)
    if method != "average":
        with torch.no_grad():
            for omega in found.parameters.values():
                omega.copy_(fill.expand_as(omega))
        torch.testing.assert_close(last(encoder, tokens), before, rtol=0, atol=1e-12)
    else:
        assert found.parameters == {}
        for omega in found.tensors().values():
            torch.testing.assert_close(omega, torch.full_like(omega, 1 / 3), rtol=1e-7, atol=0)


def looped(sources: list[Factors], omega: Tensor, x: Tensor) -> Tensor:
    total = torch.zeros(*x.shape[:-1], sources[0].up.shape[0], dtype=x.dtype)
    for source, row in zip(sources, omega, strict=True):
        total = total + row * (x @ source.down.T @ source.up.T)
    return total


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize(
    ("ranks", "dense"),
    [([4] * 3, False), ([3, 0, 5], False), ([0, 0], False), ([40, 2, 33], True), ([64], True)],
)
def test_folded_is_looped(
    ranks: list[int], dense: bool, vector: bool, dtype: torch.dtype, limit: float
) -> None:
    """Values and gradients, where the thin and where the dense form computes them."""
    torch.manual_seed(0)
    inputs, outputs = 24, 36

    def draw(*shape: int) -> Tensor:
        return (torch.randn(*shape, dtype=torch.float64) / 4).to(dtype)

    sources = [Factors(draw(rank, inputs), draw(outputs, rank)) for rank in ranks]
    bank = LinearBank(sources)
    assert bank.dense == dense
    assert list(bank.parameters()) == []
    x, cotangent = draw(2, 5, inputs), draw(2, 5, outputs)
    omega = draw(len(ranks), outputs if vector else 1)
    results = []
    for form in ("folded", "looped"):
        o, z = omega.clone().requires_grad_(), x.clone().requires_grad_()
        out = bank.mix(z, *bank.fold(o)) if form == "folded" else looped(sources, o, z)
        (out * cotangent).sum().backward()
        results.append((out, o.grad, z.grad))
    for folded, expected in zip(*results, strict=True):
        assert folded.shape == expected.shape
        scale = max(1.0, float(expected.detach().abs().max()))
        assert float((folded - expected).detach().abs().max()) / scale <= limit


@pytest.mark.parametrize("method", ["scalearn", "scalearn-uniform++"])
def test_a_training_step_launches_as_many_kernels_for_any_number_of_sources(
    method: str, backbone: Any, tokens: Any
) -> None:
    counts = []
    for count in (1, 3, 9):
        encoder = backbone.encoder()
        compose(encoder, add_sources(encoder, [2] * count), method)
        encoder.train()
        with Calls() as calls:
            encoder(**tokens).last_hidden_state.sum().backward()
        counts.append(calls.count)
    assert counts[0] == counts[1] == counts[2], counts


@pytest.mark.parametrize(
    ("method", "keys", "width"),
    [
        ("scalearn", {f"omega.{i}.{m}" for i in (0, 1) for m in ("q", "intermediate")}, None),
        ("scalearn-uniform", {f"omega.{i}.{m}" for i in (0, 1) for m in ("q", "intermediate")}, 1),
        ("scalearn++", {"omega.shared.q", "omega.shared.intermediate"}, None),
        ("scalearn-uniform++", {"omega.shared.q", "omega.shared.intermediate"}, 1),
    ],
)
def test_omegas_their_names_and_shapes(
    method: str, keys: set[str], width: int | None, encoder: Any, tokens: Any
) -> None:
    sources = add_sources(encoder, [2, 2], ["q", "intermediate"])
    torch.manual_seed(0)
    found = compose(encoder, sources, method)
    assert set(found.parameters) == keys
    for key, omega in found.parameters.items():
        outputs = 64 if key.endswith("intermediate") else 48
        assert omega.shape == (2, width or outputs)
        assert (omega - 1.0).abs().max() < 0.01  # N(2/K, 0.001)
    trained = {id(p) for p in encoder.parameters() if p.requires_grad}
    assert trained == {id(parameter) for parameter in found.parameters.values()}
    encoder(**tokens).last_hidden_state.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in found.parameters.values())


def test_omega_is_dropped_out_in_training_only(encoder: Any, tokens: Any) -> None:
    compose(encoder, add_sources(encoder, [3, 3]), dropout=0.5)
    encoder.eval()
    assert torch.equal(last(encoder, tokens), last(encoder, tokens))
    for layer in encoder.modules():  # the sites alone, so that the base's dropout stays off
        if type(layer).__name__ == "ScaLearnSite":
            layer.train()
    assert not torch.equal(last(encoder, tokens), last(encoder, tokens))


def test_omega_is_stored_and_loaded(encoder: Any, backbone: Any, tokens: Any, jiggle: Any) -> None:
    found = compose(encoder, add_sources(encoder, RANKS))
    jiggle(found.parameters.values(), 1.0, seed=9)
    stored = found.tensors()
    other = backbone.encoder()
    again = compose(other, add_sources(other, RANKS))
    again.load(stored)
    assert torch.equal(last(other, tokens), last(encoder, tokens))
    with pytest.raises(ZooError, match="does not fit"):
        again.load({**stored, "omega.0.q": stored["omega.0.q"][:2]})
    with pytest.raises(ZooError, match="does not fit"):
        again.load({"omega.0.q": stored["omega.0.q"]})


METHOD_VALUES: dict[str, dict[str, Any]] = {
    "lora": {"rank": 3, "alpha": 5.0},
    "sora": {"rank": 4},
    "adalora": {"rank": 3, "alpha": 2.0},
    "vera": {"rank": 16},
}


def test_one_hot_omega_is_that_adapter_alone(
    backbone: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    """LoRA, SoRA, AdaLoRA and VeRA sources in one composition, each picked in turn."""
    modules = "q,v,output"
    alone = []
    composed = backbone.encoder()
    for index, (name, values) in enumerate(METHOD_VALUES.items()):
        method = METHODS.get(name)
        settings = method.settings(**values, modules=modules)
        tuned = attach(backbone.encoder(), method, settings, "mine")
        jiggle(tuned.parameters.values(), 0.3, seed=index)
        if name == "sora":
            with torch.no_grad():
                tuned.parameters["gate"][:, index % 4] = 0
        tuned.save(tmp_path / name, "tiny")
        encoder = backbone.encoder()
        load(encoder, method, settings, "loaded", tmp_path / name, active=True)
        alone.append(last(encoder, tokens))
        assert method.load_source is not None
        method.load_source(composed, settings, source_names(4)[index], tmp_path / name)
    before = last(backbone.encoder(), tokens)
    assert torch.equal(last(composed, tokens), before)
    found = compose(composed, source_names(4))
    for index, expected in enumerate(alone):
        with torch.no_grad():
            for omega in found.parameters.values():
                omega.zero_()[index] = 1
        torch.testing.assert_close(last(composed, tokens), expected, rtol=0, atol=1e-5)
        assert (expected - before).abs().max() > 1e-3


def test_the_bank_moves_with_the_encoder(encoder: Any) -> None:
    compose(encoder, add_sources(encoder, RANKS))
    encoder.double()
    sites = encoder.low_rank_composition
    assert len(sites) == 12
    for site in sites.values():
        assert site.bank.up.dtype == site.effective().dtype == torch.float64


@pytest.mark.parametrize(
    ("composition", "method", "expected"),
    [
        # K = 8 sources on q and v of 12 layers, 768 outputs each
        ("scalearn", "lora", 8 * 24 * 768),
        ("scalearn-uniform", "vera", 8 * 24),
        ("scalearn++", "lora", 8 * 2 * 768),
        ("scalearn-uniform++", "vera", 8 * 2),
        ("average", "lora", 0),
        # all six modules
        ("scalearn", "sora", 8 * 12 * (5 * 768 + 3072)),
        ("scalearn-uniform++", "adalora", 8 * 6),
    ],
)
def test_counts(composition: str, method: str, expected: int) -> None:
    found = count_composition(
        composition, "roberta-base", sources=8, values={}, source_method=method
    )
    assert found.method == found.total == expected
    if method == "lora":
        whole = count_composition(
            composition, "roberta-base", sources=1, values={}, source_method=method
        )
        assert found.all_parameters - found.method == (
            whole.all_parameters - whole.method + 7 * 294912
        )


def test_fusion_is_refused_with_the_reason(encoder: Any) -> None:
    sources = add_sources(encoder, [2, 2])
    with pytest.raises(RequestError, match=r"'fusion'.*low-rank.*query.*scalearn"):
        compose(encoder, sources, "fusion")
    with pytest.raises(RequestError, match=r"'fusion'.*'lora'.*low-rank"):
        count_composition("fusion", "roberta-base", sources=2, values={}, source_method="lora")


def test_two_kinds_of_sources_are_refused_with_the_reason(encoder: Any) -> None:
    add_sources(encoder, [2])
    attach(encoder, METHODS.get("pfeiffer"), PfeifferSettings(), "source0001")
    for method in ("scalearn", "fusion"):
        with pytest.raises(RequestError, match="different places"):
            compose(encoder, source_names(2), method)
    with pytest.raises(RequestError, match=r"'pfeiffer'.*'lora'.*different places"):
        check_kinds(COMPOSITIONS.get("scalearn"), ["pfeiffer", "adakron", "lora"])


def test_sources_of_other_modules_are_refused(encoder: Any) -> None:
    add_source(encoder, "source0000", factors(encoder, 2, 0, ["q", "v"]))
    add_source(encoder, "source0001", factors(encoder, 2, 1, ["q", "k"]))
    with pytest.raises(RequestError, match=r"different linear modules.*0\.k, 0\.v"):
        compose(encoder, source_names(2))
