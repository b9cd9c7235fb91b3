"""The two-pass consistency loss: its value, its gradients, and when there is no second pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtl.backbone import Network, build_head
from mtl.methods import METHODS, attach
from mtl.methods.adamix import AdaMixSettings
from mtl.methods.consistency import consistency_loss, symmetric_kl
from mtl.methods.modules.experts import Mixture, Routing, mixtures
from mtl.tasks import load_task


def definition(first: Tensor, second: Tensor) -> Tensor:
    """Written out: ½ [KL(sg q ‖ p) + KL(sg p ‖ q)], summed over classes, averaged over rows."""
    p, q = first.softmax(-1), second.softmax(-1)
    one = (q.detach() * (q.detach().log() - p.log())).sum(-1)
    other = (p.detach() * (p.detach().log() - q.log())).sum(-1)
    return 0.5 * (one + other).mean()


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_value_and_both_gradients(classes: int) -> None:
    torch.manual_seed(classes)
    pair = [
        (3 * torch.randn(7, classes, dtype=torch.float64)).requires_grad_(True) for _ in range(2)
    ]
    found, expected = symmetric_kl(*pair), definition(*pair)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    for one, other in zip(
        torch.autograd.grad(found, pair), torch.autograd.grad(expected, pair), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
        assert bool(one.any()) == (classes > 1)
    assert (float(found.detach()) == 0.0) == (classes == 1)
    torch.testing.assert_close(symmetric_kl(*pair), symmetric_kl(*reversed(pair)))


def test_extreme_logits_stay_finite() -> None:
    first = torch.tensor([[1e4, -1e4], [0.0, 0.0]], requires_grad=True)
    second = torch.tensor([[1e4, -1e4], [0.0, 0.0]], requires_grad=True)
    value = symmetric_kl(first, second)
    assert float(value.detach()) == 0.0
    value.backward()
    assert first.grad is not None
    assert not first.grad.any()


class Halves(nn.Module):
    """Logits that say which row of the batch they are for."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.outputs = outputs
        self.seen: list[dict[str, Any]] = []

    def forward(self, batch: Any) -> Tensor:
        self.seen.append(dict(batch))
        rows = torch.arange(float(len(batch["input_ids"])))
        return self.scale * torch.stack([rows * (c + 1) for c in range(self.outputs)], dim=-1)


def batch_of(rows: int) -> dict[str, Any]:
    ids = torch.arange(rows * 2).view(rows, 2)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
        "labels": torch.arange(rows) % 2,
        "row": torch.arange(rows),
        "task": "demo/entail",
    }


def test_the_network_sees_the_batch_twice_and_the_labels_once() -> None:
    network, batch, routing = Halves(2).train(), batch_of(3), Routing()
    parts = consistency_loss(routing, network, load_task("demo/entail"), batch)
    (seen,) = network.seen
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(seen[name], torch.cat([batch[name], batch[name]]))
    logits = torch.arange(6.0)[:, None] * torch.tensor([1.0, 2.0])
    task = nn.functional.cross_entropy(logits[:3], batch["labels"])
    torch.testing.assert_close(parts["task"].detach(), task)
    torch.testing.assert_close(
        parts["consistency"].detach(), definition(logits[:3], logits[3:]), rtol=1e-4, atol=1e-6
    )
    assert routing.passes == 1


@pytest.mark.parametrize(("task", "training"), [("demo/entail", False), ("demo/similarity", True)])
def test_one_pass_where_two_say_nothing(task: str, training: bool) -> None:
    spec = load_task(task)
    network = Halves(spec.num_outputs).train(training)
    batch = {**batch_of(3), "labels": torch.ones(3).long() if not training else torch.ones(3)}
    assert list(consistency_loss(Routing(), network, spec, batch)) == ["task"]
    assert [len(seen["input_ids"]) for seen in network.seen] == [3]


def test_a_pass_that_fails_leaves_the_routing_as_it_was() -> None:
    class Broken(nn.Module):
        def forward(self, batch: Any) -> Tensor:
            raise RuntimeError("out of memory")

    routing = Routing()
    with pytest.raises(RuntimeError, match="out of memory"):
        consistency_loss(routing, Broken().train(), load_task("demo/entail"), batch_of(2))
    assert routing.passes == 1


def test_halves_draw_for_themselves() -> None:
    mixture = Mixture(2, 4, 4).train()
    mixture.routing = Routing(passes=2)
    x = torch.randn(1, 3, 4)
    alone = [nn.functional.linear(x, mixture.weight[e], mixture.bias[e]) for e in range(2)]
    seen = set()
    for _ in range(60):
        halves = mixture(torch.cat([x, x])).chunk(2)
        seen.add(tuple(int(not torch.equal(half, alone[0])) for half in halves))
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_dropout_differs_between_the_halves(backbone: Any, tokens: Any) -> None:
    """With one expert only the masks differ; without dropout nothing does."""
    encoder = backbone.encoder()
    settings = AdaMixSettings(bottleneck=4, experts=1)
    tuned = attach(encoder, METHODS.get("adamix"), settings, "mine")
    assert tuned.loss is not None
    network = Network(encoder, build_head("two_layer", encoder.config, 2, pooler=False)).train()
    batch = {**tokens, "labels": torch.tensor([0, 1, 1, 0])}
    spec = load_task("demo/entail")
    parts = tuned.loss(network, spec, batch)
    assert float(parts["consistency"].detach()) > 1e-6
    parts["consistency"].backward()
    assert all(parameter.grad is not None for parameter in tuned.parameters.values())
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    assert float(tuned.loss(network, spec, batch)["consistency"].detach()) < 1e-9


def test_off_is_the_usual_loss(backbone: Any) -> None:
    settings = AdaMixSettings(bottleneck=4, consistency=False)
    assert attach(backbone.encoder(), METHODS.get("adamix"), settings, "mine").loss is None


def test_the_doubled_batch_is_two_passes(
    backbone: Any, monkeypatch: pytest.MonkeyPatch, tokens: dict[str, Tensor], jiggle: Any
) -> None:
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
