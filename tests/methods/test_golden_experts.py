"""AdaKron, MAdaKron and AdaMix and their consistency loss against golden tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mtl.methods.consistency import symmetric_kl
from mtl.methods.modules.adakron import KronDown
from mtl.methods.modules.adamix import MixtureDown
from mtl.methods.modules.experts import Mixture
from mtl.methods.modules.madakron import MixtureKron

GOLDEN = Path(__file__).parents[1] / "golden"


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
