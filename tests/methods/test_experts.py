"""AdaKron, MAdaKron and AdaMix: counts, merging, routing, files, sources."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mtl.backbone import load_backbone
from mtl.backbone.injection import bottleneck_layers
from mtl.compose.bank import Bank
from mtl.errors import RequestError, ZooError
from mtl.methods import METHODS, as_source, attach, count_method, load
from mtl.methods.adakron import AdaKronSettings
from mtl.methods.adamix import AdaMixSettings
from mtl.methods.core import core_modules
from mtl.methods.madakron import MAdaKronSettings
from mtl.methods.modules.adamix import MixtureDown
from mtl.methods.modules.experts import Mixture, Routing, mixtures

NAMES = ["adakron", "madakron-full", "madakron-partial", "adamix"]
TYPES = ["roberta", "bert", "xlm-roberta", "deberta-v2"]


@pytest.mark.parametrize(
    ("method", "model", "values", "trained", "merged"),
    [
        ("adakron", "bert-base-uncased", {"bottleneck": 48}, 599_232, 599_232),
        ("adakron", "bert-base-uncased", {"bottleneck": 32}, 414_864, 414_864),
        ("adakron", "bert-base-uncased", {"bottleneck": 16}, 230_496, 230_496),
        ("adakron", "roberta-large", {"bottleneck": 16}, 614_592, 614_592),
        ("adamix", "bert-base-uncased", {}, 2_223_360, 894_528),
        ("adamix", "roberta-large", {"bottleneck": 16}, 1_992_192, 811_392),
        ("madakron-full", "bert-base-uncased", {}, 746_880, 599_232),
        ("madakron-partial", "bert-base-uncased", {}, 636_144, 599_232),
        ("madakron-full", "bert-base-uncased", {"experts": 4}, 1_042_176, 599_232),
        ("madakron-partial", "bert-base-uncased", {"experts": 8}, 857_616, 599_232),
    ],
)
def test_counts(method: str, model: str, values: Any, trained: int, merged: int) -> None:
    found = count_method(method, model, values=values)
    assert (found.method, found.merged) == (trained, merged)


def test_averaging_is_exact_before_the_activation_of_the_partial_form_only() -> None:
    torch.manual_seed(0)
    u, v = torch.randn(3, 6, 4).double(), torch.randn(3, 6, 5).double()  # experts first

    def kron(a: Tensor, b: Tensor) -> Tensor:
        return (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)

    partial = torch.stack([kron(u[e], v[0]) for e in range(3)]).mean(0)
    torch.testing.assert_close(partial, kron(u.mean(0), v[0]))
    pairs = [kron(u[a], v[b]) for a, b in itertools.product(range(3), repeat=2)]
    torch.testing.assert_close(torch.stack(pairs).mean(0), kron(u.mean(0), v.mean(0)))
    matched = torch.stack([kron(u[e], v[e]) for e in range(3)]).mean(0)
    assert (matched - kron(u.mean(0), v.mean(0))).abs().max() > 0.1


def test_levels_of_evaluation() -> None:
    torch.manual_seed(0)
    mixture = Mixture(3, 6, 5).eval()
    with torch.no_grad():
        mixture.bias.normal_()
    x = torch.randn(4, 7, 6)
    alone = torch.stack([x @ mixture.weight[e].t() + mixture.bias[e] for e in range(3)])

    def run(level: int, seed: int) -> Tensor:
        mixture.routing = Routing(level, generator=torch.Generator().manual_seed(seed))
        return mixture(x)

    torch.testing.assert_close(run(3, 0), alone.mean(0))
    for level, axes in ((0, (4, 7)), (1, (4,))):
        found = run(level, 1)
        torch.testing.assert_close(found, run(level, 1))
        assert not torch.equal(found, run(level, 2))
        distance = (found - alone).abs().amax(-1)  # (E,B,T)
        chosen = distance.argmin(0)
        assert distance.gather(0, chosen[None]).max().item() < 1e-5
        assert len(chosen.unique()) == 3
        if level == 1:
            assert (chosen == chosen[:, :1]).all()
        else:
            assert not (chosen == chosen[:, :1]).all()
        assert len(axes) == 2 - level


def test_experts_start_apart_and_one_draw_serves_the_batch() -> None:
    torch.manual_seed(0)
    mixture = Mixture(4, 64, 32).train()
    assert mixture.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert (mixture.weight[0] - mixture.weight[1]).abs().max() > 0.01
    x = torch.randn(6, 3, 64)
    alone = torch.stack([x @ mixture.weight[e].t() for e in range(4)])
    seen = set()
    for _ in range(40):
        distance = (mixture(x) - alone).abs().amax((1, 2, 3))
        assert distance.min().item() < 1e-5
        seen.add(int(distance.argmin()))
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby", "parallel", "paper"])
def test_merged_stored_and_loaded_is_the_same(
    kind: str, placement: str, tiny: Callable[[str], str], jiggle: Any, tokens: Any, tmp_path: Path
) -> None:
    backbone = load_backbone(tiny(kind))
    for name in NAMES:
        method = METHODS.get(name)
        values = {**method.defaults, "placement": placement, "bottleneck": 8}
        encoder = backbone.encoder()
        tuned = attach(encoder, method, method.settings(**values), "mine")
        jiggle(tuned.parameters.values(), 0.2)
        with torch.no_grad():
            before = encoder(**tokens).last_hidden_state
            if tuned.finish:
                tuned.finish()
            merged = encoder(**tokens).last_hidden_state
        assert (merged - before).abs().max() < 2e-6
        assert not mixtures(encoder, "mine")
        folder = tmp_path / name
        folder.mkdir()
        tuned.save(folder, "tiny")
        other = backbone.encoder()
        again = load(other, method, method.settings(**values), "another", folder, active=True)
        with torch.no_grad():
            assert torch.equal(other(**tokens).last_hidden_state, merged)
        assert not any(p.requires_grad for p in other.parameters())
        (tmp_path / f"{name}2").mkdir()
        again.save(tmp_path / f"{name}2", "tiny")
        for file in folder.iterdir():
            assert (tmp_path / f"{name}2" / file.name).read_bytes() == file.read_bytes()
        stored = load_file(folder / "adapter.safetensors")
        assert sum(v.numel() for v in stored.values()) == (
            tuned.merged or sum(p.numel() for p in tuned.parameters.values())
        )


@pytest.mark.parametrize("name", ["adamix", "madakron-full", "madakron-partial"])
@pytest.mark.parametrize("level", [0, 1])
def test_routed_levels_are_stored_whole(
    name: str, level: int, backbone: Any, jiggle: Any, tokens: Any, tmp_path: Path
) -> None:
    method = METHODS.get(name)
    values = {**method.defaults, "bottleneck": 8}
    settings = method.settings(**values, inference_level=level)
    encoder = backbone.encoder()
    tuned = attach(encoder, method, settings, "mine")
    assert tuned.merged is None
    jiggle(tuned.parameters.values(), 0.2)
    assert tuned.finish is not None
    tuned.finish()
    tuned.save(tmp_path, "tiny")
    stored = load_file(tmp_path / "adapter.safetensors")
    assert sum(v.numel() for v in stored.values()) == sum(
        p.numel() for p in tuned.parameters.values()
    )
    other = backbone.encoder()
    again = load(other, method, settings, "another", tmp_path, active=True)
    found = []
    state = torch.get_rng_state()
    for network, contexts in (
        (encoder, tuned.caches),
        (encoder, tuned.caches),
        (other, again.caches),
    ):
        with contexts[0](), torch.no_grad():
            found.append(network(**tokens).last_hidden_state)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), state)  # training goes on as if never evaluated
    with pytest.raises(ZooError, match="do not fit"):
        load(backbone.encoder(), method, method.settings(**values), "x", tmp_path)


def test_evaluations_average_once_and_anew(
    backbone: Any, jiggle: Any, tokens: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = backbone.encoder()
    settings = AdaMixSettings(bottleneck=4, share_up=False)
    tuned = attach(encoder, METHODS.get("adamix"), settings, "mine")
    jiggle(tuned.parameters.values(), 0.2)
    averaged = []
    mean = Mixture.mean
    monkeypatch.setattr(Mixture, "mean", lambda own: (averaged.append(own), mean(own))[1])

    def evaluate() -> Tensor:
        averaged.clear()
        with tuned.caches[0](), torch.no_grad():
            first = encoder(**tokens).last_hidden_state
            assert torch.equal(encoder(**tokens).last_hidden_state, first)
        assert len(averaged) == len(mixtures(encoder, "mine")) == 4
        return first

    before = evaluate()
    assert torch.equal(evaluate(), before)
    jiggle(tuned.parameters.values(), 0.2, seed=1)
    after = evaluate()
    assert (after - before).abs().max() > 1e-3
    assert tuned.finish is not None
    tuned.finish()
    with tuned.caches[0](), torch.no_grad():
        assert torch.equal(encoder(**tokens).last_hidden_state, after)


@pytest.mark.parametrize("name", ["adamix", "madakron-full", "madakron-partial"])
def test_merging_draws_nothing(name: str, backbone: Any) -> None:
    method = METHODS.get(name)
    encoder = backbone.encoder()
    settings = method.settings(**{**method.defaults, "bottleneck": 8})
    tuned = attach(encoder, method, settings, "mine")
    state = torch.get_rng_state()
    for site in core_modules(encoder, "mine").values():
        as_source(site, encoder.adapters_config.get("mine"))
    assert tuned.finish is not None
    tuned.finish()
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_are_those_of_the_global_generator_bottom_up() -> None:
    torch.manual_seed(0)
    down, up = MixtureDown(Mixture(3, 6, 5)), Mixture(3, 5, 6)
    with torch.no_grad():
        down.mixture.bias.normal_()
        up.bias.normal_()
    x = torch.randn(2, 6)
    torch.manual_seed(1)
    drawn = [int(torch.randint(3, (1,))) for _ in range(20)]
    assert len({*zip(drawn[::2], drawn[1::2], strict=True)}) > 4
    torch.manual_seed(1)
    for first, second in zip(drawn[::2], drawn[1::2], strict=True):
        inner = x @ down.mixture.weight[first].t() + down.mixture.bias[first]
        expected = nn.functional.gelu(inner) @ up.weight[second].t() + up.bias[second]
        torch.testing.assert_close(up(down(x)), expected)


def test_an_expert_that_is_not_drawn_has_a_gradient_of_zeros(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixture = Mixture(3, 6, 5).train()
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor([1]))
    mixture(torch.randn(4, 6)).square().sum().backward()
    for grad in (mixture.weight.grad, mixture.bias.grad):
        assert grad is not None
        assert [bool(part.any()) for part in grad] == [False, True, False]


@pytest.mark.parametrize("kind", TYPES)
def test_paper_placement(kind: str, tiny: Callable[[str], str], jiggle: Any) -> None:
    """``LN(dropout(u(g) + g) + x)``: in training the block's dropout acts behind the adapter."""
    encoder = load_backbone(tiny(kind)).encoder()
    settings = AdaKronSettings(bottleneck=8, placement="paper")
    jiggle(attach(encoder, METHODS.get("adakron"), settings, "mine").parameters.values(), 0.3)
    layers = [layer for _, key, layer in bottleneck_layers(encoder) if key == "output_adapter"]
    attention = [layer for _, key, layer in bottleneck_layers(encoder) if key == "mh_adapter"]
    assert all("mine" in layer.adapters for layer in layers)
    assert not any("mine" in layer.adapters for layer in attention)
    (layer,) = layers[:1]
    hidden, x = torch.randn(2, 5, 64), torch.randn(2, 5, 48)

    def expected(drop: Any) -> Tensor:
        adapter = layer.adapters["mine"]
        g = layer.dense(hidden)
        return layer.LayerNorm(drop(adapter.adapter_up(adapter.adapter_down(g)) + g) + x)

    encoder.eval()
    torch.testing.assert_close(layer(hidden, x), expected(lambda value: value))
    encoder.train()
    torch.manual_seed(3)
    found = layer(hidden, x)
    torch.manual_seed(3)
    torch.testing.assert_close(found, expected(nn.Dropout(0.1).train()))
    assert (found - expected(lambda value: value)).abs().max() > 1e-3


@pytest.mark.parametrize("placement", ["pfeiffer", "paper"])
def test_sources_together_are_sources_alone(placement: str, backbone: Any, jiggle: Any) -> None:
    encoder = backbone.encoder()
    made = []
    for index, (name, values) in enumerate(
        [
            ("adakron", {"bottleneck": 8}),
            ("adakron", {"bottleneck": 8}),
            ("adamix", {"bottleneck": 5}),
            ("adakron", {"bottleneck": 16}),
            ("madakron-full", {"bottleneck": 8}),
        ]
    ):
        method = METHODS.get(name)
        settings = method.settings(**{**method.defaults, "placement": placement, **values})
        tuned = attach(encoder, method, settings, f"source{index}")
        jiggle(tuned.parameters.values(), 0.4, seed=index)
        if tuned.finish:
            tuned.finish()
        made.append(f"source{index}")
    encoder.double()
    z = torch.randn(2, 5, 48, dtype=torch.float64)
    omega = torch.randn(len(made), 48, dtype=torch.float64)
    for _, _, layer in bottleneck_layers(encoder):
        if made[0] not in layer.adapters:
            continue
        sources = [as_source(layer.adapters[n], encoder.adapters_config.get(n)) for n in made]
        bank = Bank(sources)
        assert len(bank.groups) == 3  # AdaKron of R = 8 (three), of R = 16, plain
        expected = torch.zeros_like(z)
        for name, scale in zip(made, omega, strict=True):
            adapter = layer.adapters[name]
            expected += scale * adapter.adapter_up(adapter.adapter_down(z))
        found = bank.mix(z, *bank.fold(omega))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AdaKronSettings(bottleneck=30), "multiple of 4.*28 and 32"),
        (lambda: AdaKronSettings(bottleneck=0), "multiple of 4"),
        (lambda: MAdaKronSettings(bottleneck=6), "multiple of 4"),
        (lambda: AdaKronSettings(placement="papr"), "Did you mean 'paper'"),
        (lambda: AdaMixSettings(inference_level=2), "inference_level=2 does not exist"),
        (lambda: MAdaKronSettings(inference_level=4), "inference_level=4 does not exist"),
        (lambda: AdaMixSettings(experts=0), "experts=0"),
        (lambda: AdaMixSettings(bottleneck=0), "bottleneck=0"),
    ],
)
def test_wrong_settings(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        make()


def test_modules_by_site(backbone: Any) -> None:
    encoder = backbone.encoder()
    settings = AdaKronSettings(bottleneck=8, placement="houlsby")
    attach(encoder, METHODS.get("adakron"), settings, "mine")
    assert list(core_modules(encoder, "mine")) == [
        "0.mh_adapter",
        "0.output_adapter",
        "1.mh_adapter",
        "1.output_adapter",
    ]
