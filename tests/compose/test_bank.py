"""The fast composed forward against a plain loop over the sources, and what must hold of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernel_bench import Calls
from torch import Tensor, nn

from mtl.compose.bank import Bank
from mtl.compose.composition import COMPOSITIONS
from mtl.compose.sites import site_keys
from mtl.errors import RequestError, ZooError
from mtl.methods import METHODS, PlainSource, attach, source_names
from mtl.methods.pfeiffer import PfeifferSettings
from mtl.methods.source import CoreSource

D = 24


def plain(size: int, act: str = "relu", dtype: torch.dtype = torch.float64) -> PlainSource:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64).to(dtype)

    return PlainSource(draw(size, D), draw(size), act, draw(D, size) / 4, draw(D))


class Product(nn.Module):
    """Features that are no activation of one linear map: a product of two."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.a, self.b = (torch.randn(size, D, dtype=torch.float64).to(dtype) for _ in "ab")

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.a.T) * (z @ self.b.T) / 8


def product(size: int, dtype: torch.dtype) -> CoreSource:
    up, bias = (torch.randn(*s, dtype=torch.float64).to(dtype) for s in ((D, size), (D,)))
    return CoreSource(Product(size, dtype), up, bias)


def looped(sources: list[Any], omega: Tensor, z: Tensor) -> Tensor:
    """``Σ_k omega_k ⊙ (U_k features_k(z) + b_k)``, as the paper writes it."""
    total = torch.zeros_like(z)
    for source, scale in zip(sources, omega, strict=True):
        up, bias = source.up()
        total = total + scale * (source.features(z) @ up.T + bias)
    return total


SETS: dict[str, list[tuple[int, str]]] = {
    "equal": [(4, "relu")] * 5,
    "mixed sizes": [(4, "relu"), (7, "relu"), (1, "relu"), (16, "relu")],
    "mixed activations": [(4, "relu"), (4, "tanh"), (4, "relu"), (4, "gelu_new"), (4, "swish")],
    "everything": [(3, "gelu"), (0, ""), (8, "relu"), (5, "gelu"), (0, ""), (3, "relu")],
    "one": [(4, "relu")],
}


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("width", [D, 1])
@pytest.mark.parametrize("kinds", SETS.values(), ids=SETS)
def test_folded_is_looped(
    kinds: list[tuple[int, str]], width: int, dtype: torch.dtype, limit: float
) -> None:
    torch.manual_seed(0)
    sources = [plain(r, act, dtype) if r else product(6, dtype) for r, act in kinds]
    bank = Bank(sources)
    omega = torch.randn(len(sources), width, dtype=torch.float64).to(dtype)
    z = torch.randn(2, 5, D, dtype=torch.float64).to(dtype)
    cotangent = torch.randn(2, 5, D, dtype=torch.float64).to(dtype)
    results = []
    for form in ("folded", "looped"):
        o, x = omega.clone().requires_grad_(), z.clone().requires_grad_()
        out = bank.mix(x, *bank.fold(o)) if form == "folded" else looped(sources, o, x)
        (out * cotangent).sum().backward()
        results.append((out, o.grad, x.grad))
    for folded, expected in zip(*results, strict=True):
        assert folded.shape == expected.shape
        scale = max(1.0, expected.abs().max().item())
        assert (folded - expected).abs().max().item() / scale <= limit


def test_bank_holds_no_parameters_and_keeps_the_order_of_the_sources() -> None:
    torch.manual_seed(0)
    sources = [plain(r, act) if r else product(2, torch.float64) for r, act in SETS["everything"]]
    bank = Bank(sources)
    assert list(bank.parameters()) == []
    assert bank.state_dict() == {}
    assert bank.count == 6
    assert bank.sizes == [3, 2, 8, 5, 2, 3]
    # Source 1 alone, in a place where grouping moved it.
    omega = torch.zeros(6, 1, dtype=torch.float64)
    omega[1] = 1
    z = torch.randn(1, 2, D, dtype=torch.float64)
    up, bias = sources[1].up()
    torch.testing.assert_close(bank.mix(z, *bank.fold(omega)), sources[1].features(z) @ up.T + bias)


def test_an_empty_bank_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Bank([])


# ---------------------------------------------------------------- in a whole encoder


def add_sources(
    encoder: Any, settings: list[PfeifferSettings], jiggle: Any, prefix: str = ""
) -> list[str]:
    names = source_names(len(settings))
    for index, (name, value) in enumerate(zip(names, settings, strict=True)):
        parameters = attach(encoder, METHODS.get("pfeiffer"), value, name).parameters
        jiggle(parameters.values(), 0.2, seed=index)
        for parameter in parameters.values():
            parameter.requires_grad_(False)
    return names


def compose(encoder: Any, names: list[str], method: str = "scalearn", **values: Any) -> Any:
    composition = COMPOSITIONS.get(method)
    settings = composition.settings(**{**composition.defaults, **values})
    return composition.attach(encoder, names, settings)


def hidden(encoder: Any, tokens: dict[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return list(encoder(**tokens, output_hidden_states=True).hidden_states)


def fill(found: Any, rows: Tensor) -> None:
    with torch.no_grad():
        for omega in found.parameters.values():
            omega.copy_(rows.expand_as(omega))


PLACEMENTS = ["pfeiffer", "houlsby", "parallel"]
FOUR = [
    {"reduction_factor": 16},
    {"reduction_factor": 8, "activation": "tanh"},
    {"bottleneck": 5},
    {"reduction_factor": 4, "activation": "gelu"},
]


def settings_for(placement: str, count: int = 4) -> list[PfeifferSettings]:
    return [PfeifferSettings(placement=placement, **FOUR[i % 4]) for i in range(count)]


@pytest.mark.parametrize("method", ["scalearn", "scalearn++", "scalearn-uniform"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_one_hot_omega_is_that_adapter_alone(
    placement: str, method: str, encoder: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    encoder.double()
    names = add_sources(encoder, settings_for(placement), jiggle)
    encoder.double()
    alone = {}
    for name in names:
        encoder.set_active_adapters(name)
        alone[name] = hidden(encoder, tokens)
    found = compose(encoder, names, method)
    encoder.double()
    for index, name in enumerate(names):
        rows = torch.zeros(len(names), 1, dtype=torch.float64)
        rows[index] = 1
        fill(found, rows)
        for ours, theirs in zip(hidden(encoder, tokens), alone[name], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert (alone[names[0]][-1] - alone[names[1]][-1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["roberta", "bert", "xlm-roberta", "deberta-v2"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_zero_omega_is_the_plain_backbone(
    placement: str, kind: str, tiny: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    from mtl.backbone import load_backbone

    encoder = load_backbone(tiny(kind)).encoder()
    encoder.double()
    before = hidden(encoder, tokens)
    names = add_sources(encoder, settings_for(placement), jiggle)
    found = compose(encoder, names)
    encoder.double()
    fill(found, torch.zeros(len(names), 1))
    for ours, theirs in zip(hidden(encoder, tokens), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    fill(found, torch.ones(len(names), 1))
    assert (hidden(encoder, tokens)[-1] - before[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("method", ["scalearn", "scalearn-uniform++"])
def test_the_order_of_sources_does_not_matter(
    method: str, backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    settings = settings_for("pfeiffer")
    outputs = []
    torch.manual_seed(5)
    rows = torch.randn(4, 48 if method == "scalearn" else 1, dtype=torch.float64)
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        encoder = backbone.encoder()
        names = add_sources(encoder, settings, jiggle)
        found = compose(encoder, [names[i] for i in order], method)
        encoder.double()
        fill(found, rows[order])
        outputs.append(hidden(encoder, tokens)[-1])
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)


def test_average_is_the_mean_of_the_sources_and_trains_nothing(
    encoder: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    found = compose(encoder, names, "average")
    assert found.parameters == {}
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    (stored,) = found.tensors().values()
    assert torch.equal(stored, torch.full((4, 1), 0.25))
    averaged = hidden(encoder, tokens)[-1]
    learned = compose_again(encoder, names, tokens, torch.full((4, 1), 0.25))
    torch.testing.assert_close(averaged, learned)


def compose_again(encoder: Any, names: list[str], tokens: Any, rows: Tensor) -> Tensor:
    encoder.delete_adapter_fusion("composition")
    found = compose(encoder, names, "scalearn-uniform++")
    fill(found, rows)
    return hidden(encoder, tokens)[-1]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_holding_the_fold_changes_nothing_and_ends(
    placement: str, encoder: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    names = add_sources(encoder, settings_for(placement), jiggle)
    found = compose(encoder, names)
    encoder.eval()
    every_time = hidden(encoder, tokens)[-1]
    with found.evaluating():
        assert torch.equal(hidden(encoder, tokens)[-1], every_time)
        assert torch.equal(hidden(encoder, tokens)[-1], every_time)
    fill(found, torch.ones(4, 1))
    assert not torch.equal(hidden(encoder, tokens)[-1], every_time)
    with pytest.raises(ZeroDivisionError), found.evaluating():
        raise ZeroDivisionError
    changed = hidden(encoder, tokens)[-1]
    fill(found, torch.zeros(4, 1))
    assert not torch.equal(hidden(encoder, tokens)[-1], changed)


@pytest.mark.parametrize(
    ("placement", "method", "keys"),
    [
        ("pfeiffer", "scalearn", {"omega.0", "omega.1"}),
        ("pfeiffer", "scalearn++", {"omega.shared"}),
        (
            "houlsby",
            "scalearn",
            {f"omega.{i}.{s}_adapter" for i in (0, 1) for s in ("mh", "output")},
        ),
        ("houlsby", "scalearn++", {"omega.shared.mh_adapter", "omega.shared.output_adapter"}),
    ],
)
def test_omegas_and_their_names(
    placement: str, method: str, keys: set[str], encoder: Any, jiggle: Any
) -> None:
    names = add_sources(encoder, settings_for(placement), jiggle)
    found = compose(encoder, names, method)
    assert set(found.parameters) == keys
    wanted = {id(parameter) for parameter in found.parameters.values()}
    trained = {id(p) for p in encoder.parameters() if p.requires_grad}
    assert trained == wanted


def test_omega_is_stored_and_loaded(
    encoder: Any, backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    found = compose(encoder, names)
    jiggle(found.parameters.values(), 1.0, seed=9)
    stored = found.tensors()
    other = backbone.encoder()
    add_sources(other, settings_for("pfeiffer"), jiggle)
    again = compose(other, names)
    again.load(stored)
    assert torch.equal(hidden(other, tokens)[-1], hidden(encoder, tokens)[-1])
    with pytest.raises(ZooError, match="does not fit"):
        again.load({**stored, "omega.0": stored["omega.0"][:2]})
    with pytest.raises(ZooError, match="does not fit"):
        again.load({"omega.0": stored["omega.0"]})


def test_sources_without_sites_are_refused_by_as_source(encoder: Any) -> None:
    from adapters import SeqBnConfig

    names = source_names(2)
    for name in names:
        encoder.add_adapter(name, config=SeqBnConfig(reduction_factor=8, ln_before=True))
    with pytest.raises(RequestError, match="ln_before"):
        compose(encoder, names)


@pytest.mark.parametrize("scaling", [0.5, 4.0])
def test_a_scaled_source_keeps_its_scale(
    scaling: float, encoder: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    from adapters import SeqBnConfig

    from mtl.backbone.injection import adapter_parameters

    encoder.add_adapter("source0000", config=SeqBnConfig(reduction_factor=8, scaling=scaling))
    jiggle(adapter_parameters(encoder, "source0000").values(), 0.2)
    encoder.set_active_adapters("source0000")
    alone = hidden(encoder, tokens)[-1]
    found = compose(encoder, ["source0000"])
    fill(found, torch.ones(1, 1))
    torch.testing.assert_close(hidden(encoder, tokens)[-1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("method", ["scalearn", "scalearn-uniform++"])
def test_a_training_step_launches_as_many_kernels_for_any_number_of_sources(
    placement: str, method: str, backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    counts = []
    for sources in (1, 8, 64):
        encoder = backbone.encoder()
        settings = [PfeifferSettings(placement=placement)] * sources
        names = add_sources(encoder, settings, jiggle)
        compose(encoder, names, method)
        encoder.train()
        with Calls() as calls:
            encoder(**tokens).last_hidden_state.sum().backward()
        counts.append(calls.count)
    assert counts[0] == counts[1] == counts[2], counts
    assert counts[0] > 50


def test_the_bank_moves_with_the_encoder(encoder: Any, jiggle: Any) -> None:
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    compose(encoder, names)
    encoder.double()
    for site in site_keys(encoder).values():
        assert isinstance(site, nn.Module)
        assert site.bank.up.dtype == torch.float64
        assert site.effective().dtype == torch.float64
