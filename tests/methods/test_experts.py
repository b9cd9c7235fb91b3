"""AdaKron, MAdaKron and AdaMix: golden tensors, counts, merging, routing, files, sources."""

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
from mtl.methods.consistency import consistency_loss, symmetric_kl
from mtl.methods.core import core_modules
from mtl.methods.madakron import MAdaKronSettings
from mtl.methods.modules.adakron import KronDown
from mtl.methods.modules.adamix import MixtureDown
from mtl.methods.modules.experts import Mixture, Routing, mixtures
from mtl.methods.modules.madakron import MixtureKron
from mtl.tasks import load_task

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ["adakron", "madakron-full", "madakron-partial", "adamix"]
TYPES = ["roberta", "bert", "xlm-roberta", "deberta-v2"]


def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def put(linear: Any, weight: Tensor, bias: Tensor) -> None:
    linear.double()
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)


def close(found: Tensor | None, expected: Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", ["case08a_adakron_r16", "case08b_adakron_r12"])
def test_golden_adakron(case: str) -> None:
    g = golden(case)
    size = g["U.weight"].shape[1]
    down, up = KronDown(nn.Linear(24, 4 + size // 4)), nn.Linear(size, 24)
    put(
        down.both,
        torch.cat([g["D2.weight"], g["D1.weight"]]),
        torch.cat([g["D2.bias"], g["D1.bias"]]),
    )
    put(up, g["U.weight"], g["U.bias"])
    x = g["x"].clone().requires_grad_(True)
    out = up(down(x)) + x
    close(out.detach(), g["out"])
    loss = (out * g["cotangent"]).sum()
    close(loss.detach(), g["loss"])
    loss.backward()
    weight, bias = down.both.weight.grad, down.both.bias.grad
    assert weight is not None
    assert bias is not None
    close(x.grad, g["grad.x"])
    close(weight[:4], g["grad.D2.weight"])
    close(weight[4:], g["grad.D1.weight"])
    close(torch.cat([bias[:4], bias[4:]]), torch.cat([g["grad.D2.bias"], g["grad.D1.bias"]]))
    close(up.weight.grad, g["grad.U.weight"])
    close(up.bias.grad, g["grad.U.bias"])


def filled(g: dict[str, Tensor], part: str) -> Mixture:
    experts = sum(key.startswith(f"{part}.") and key.endswith(".weight") for key in g)
    experts -= f"{part}.merged.weight" in g
    outputs, inputs = g[f"{part}.0.weight"].shape
    mixture = Mixture(experts, inputs, outputs)
    put(
        mixture,
        torch.stack([g[f"{part}.{e}.weight"] for e in range(experts)]),
        torch.stack([g[f"{part}.{e}.bias"] for e in range(experts)]),
    )
    return mixture


@pytest.mark.parametrize(
    "case", ["case08c_adamix_two_experts", "case08d_adamix_four_experts_shared_up"]
)
def test_golden_adamix(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    g = golden(case)
    down, up = MixtureDown(filled(g, "down")), filled(g, "up")
    down.eval()
    up.eval()
    for part, mixture in (("down", down.mixture), ("up", up)):
        weight, bias = mixture.mean()
        close(weight.detach(), g[f"{part}.merged.weight"])
        close(bias.detach(), g[f"{part}.merged.bias"])
    x = g["x"].clone().requires_grad_(True)
    out = up(down(x)) + x
    close(out.detach(), g["out"])
    merged = up.linear()(down.merge()(x)) + x
    close(merged.detach(), g["out"])
    loss = (out * g["cotangent"]).sum()
    close(loss.detach(), g["loss"])
    loss.backward()
    close(x.grad, g["grad.x"])
    for part, mixture in (("down", down.mixture), ("up", up)):
        for expert in range(mixture.experts):
            assert mixture.weight.grad is not None
            assert mixture.bias.grad is not None
            close(mixture.weight.grad[expert], g[f"grad.{part}.{expert}.weight"])
            close(mixture.bias.grad[expert], g[f"grad.{part}.{expert}.bias"])
    down.train()
    up.train()
    for (first, second), expected in zip(
        g["routed.experts"].tolist(), g["routed.out"], strict=True
    ):
        drawn = iter([first] if up.experts == 1 else [first, second])
        monkeypatch.setattr(torch, "randint", lambda *_, it=drawn: torch.tensor([next(it)]))
        close((up(down(g["x"])) + g["x"]).detach(), expected)
        assert next(drawn, None) is None


def test_golden_madakron_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its GPT-2 module has the shared projection outside and softmax scores that are not equal.
    g = golden("case08f_madakron_nlg_partial")
    size = g["U.weight"].shape[1]
    up = nn.Linear(size, 24)
    put(up, g["U.weight"], g["U.bias"])
    routed, shared = filled(g, "Dr"), Mixture(1, 24, size // 4)
    put(shared, g["Ds.weight"][None], g["Ds.bias"][None])
    # ours: routed outer, shared inner; theirs the reverse, a permutation of the columns of U
    order = torch.arange(size).view(size // 4, 4).t().reshape(-1)
    with torch.no_grad():
        up.weight.copy_(up.weight[:, order])
    down = MixtureKron(routed, shared).train()
    for expert, expected in zip(g["routed.experts"].tolist(), g["routed.out"], strict=True):
        monkeypatch.setattr(torch, "randint", lambda *_, e=expert: torch.tensor([e]))
        close((up(down(g["x"])) + g["x"]).detach(), expected)
    # Experts scaled by E·softmax(s), so that our plain mean is its soup.
    share = 3 * g["soup_scores"].softmax(0)
    with torch.no_grad():
        routed.weight *= share[:, None, None]
        routed.bias *= share[:, None]
    down.eval()
    x = g["x"].clone().requires_grad_(True)
    out = up(down(x)) + x
    close(out.detach(), g["out"])
    close((up(down.merge()(x)) + x).detach(), g["out"])
    loss = (out * g["cotangent"]).sum()
    close(loss.detach(), g["loss"])
    loss.backward()
    grads = {key: value.grad for key, value in (*down.named_parameters(), *up.named_parameters())}
    close(x.grad, g["grad.x"])
    close(grads["inner.weight"][0], g["grad.Ds.weight"])
    close(grads["inner.bias"][0], g["grad.Ds.bias"])
    close(grads["weight"], g["grad.U.weight"][:, order])
    close(grads["bias"], g["grad.U.bias"])
    for e in range(3):
        close(grads["outer.weight"][e] * share[e], g[f"grad.Dr.{e}.weight"])
        close(grads["outer.bias"][e] * share[e], g[f"grad.Dr.{e}.bias"])


@pytest.mark.parametrize("sort", ["one_logit", "two_class", "three_class", "large_logits"])
def test_golden_consistency(sort: str) -> None:
    g = golden("case08e_consistency_loss")
    first, second = (
        g[f"{sort}.{which}_logits"].double().requires_grad_(True) for which in ("first", "second")
    )
    value = symmetric_kl(first, second)
    value.backward()
    tolerance = {"rtol": 1e-5, "atol": 1e-6}  # float32 in the reference
    torch.testing.assert_close(value.detach(), g[f"{sort}.loss"].double(), **tolerance)
    for which, logits in (("first", first), ("second", second)):
        expected = g[f"{sort}.grad.{which}_logits"].double()
        torch.testing.assert_close(logits.grad, expected, **tolerance)
    p, q = first.detach().softmax(-1), second.detach().softmax(-1)
    closed = 0.5 * ((p - q) * (p.log() - q.log())).sum() / len(p)
    torch.testing.assert_close(value.detach(), closed, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(first.grad, 0.5 * (p - q) / len(p), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(second.grad, 0.5 * (q - p) / len(p), rtol=1e-9, atol=1e-12)
    if sort == "one_logit":
        assert float(value.detach()) == 0.0


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


def test_the_doubled_batch_is_two_passes(
    backbone: Any, monkeypatch: pytest.MonkeyPatch, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    from mtl.backbone import Network, build_head

    encoder = backbone.encoder()
    settings = AdaMixSettings(bottleneck=4, experts=3, share_up=False)
    tuned = attach(encoder, METHODS.get("adamix"), settings, "mine")
    jiggle(tuned.parameters.values(), 0.2)
    network = Network(encoder, build_head("two_layer", encoder.config, 2, pooler=False)).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    encoder.config.attention_probs_dropout_prob = 0.0
    for module in network.modules():
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    batch: dict[str, Any] = {**tokens, "labels": torch.tensor([0, 1, 1, 0])}
    count = len(mixtures(encoder, "mine"))
    draws = [(index % 3, (index + 1) % 3) for index in range(count)]
    spec = load_task("demo/entail")

    def choose(chosen: list[list[int]]) -> None:
        them = iter(chosen)
        monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor(next(them)))

    choose([list(pair) for pair in draws])
    assert tuned.loss is not None
    parts = tuned.loss(network, spec, batch)
    choose([[first] for first, _ in draws])
    p = network(batch)
    choose([[second] for _, second in draws])
    q = network(batch)
    assert (p - q).abs().max() > 1e-4
    expected = nn.functional.cross_entropy(p, batch["labels"])
    torch.testing.assert_close(parts["task"], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts["consistency"], symmetric_kl(p, q), rtol=1e-4, atol=1e-7)


def test_no_second_pass_where_there_is_nothing_to_compare() -> None:
    seen = []

    class Counting(nn.Module):
        def forward(self, batch: Any) -> Tensor:
            seen.append(len(batch["input_ids"]))
            return torch.zeros(len(batch["input_ids"]), 1, requires_grad=True)

    batch = {"input_ids": torch.zeros(3, 2, dtype=torch.long), "labels": torch.ones(3)}
    parts = consistency_loss(Routing(), Counting().train(), load_task("demo/similarity"), batch)
    assert list(parts) == ["task"]
    assert seen == [3]


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
