"""AdaKron alone: definition, gradients and what they keep, order of the factors, first draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtl.compose.bank import Bank
from mtl.methods import METHODS, as_source, attach
from mtl.methods.adakron import AdaKronSettings
from mtl.methods.core import core_modules
from mtl.methods.modules.adakron import KronDown, bert_linear, kron_features


def maps(hidden: int, size: int, seed: int = 0) -> tuple[KronDown, nn.Linear]:
    """Random maps of one adapter in fp64, biases too."""
    torch.manual_seed(seed)
    down = KronDown(nn.Linear(hidden, 4 + size // 4)).double()
    return down, nn.Linear(size, hidden).double()


@pytest.mark.parametrize("size", [4, 12, 48])
def test_one_product_is_the_definition(size: int) -> None:
    down, up = maps(10, size)
    x = torch.randn(3, 7, 10, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(3, 7, 10, dtype=torch.float64)
    weights = [x, down.both.weight, down.both.bias, up.weight, up.bias]
    found = up(down(x))
    first = nn.functional.linear(x, down.both.weight[:4], down.both.bias[:4])
    second = nn.functional.linear(x, down.both.weight[4:], down.both.bias[4:])
    rows = zip(first.reshape(-1, 4), second.reshape(-1, size // 4), strict=True)
    z = torch.stack([torch.kron(u, v) for u, v in rows]).view(3, 7, size)
    expected = up(0.5 * z * (1 + torch.erf(z / 2**0.5)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(found, weights, cotangent),
        torch.autograd.grad(expected, weights, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_gradients_of_gradients() -> None:
    both = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kron_features, (both,))
    assert torch.autograd.gradgradcheck(kron_features, (both,))


def test_the_product_is_not_kept() -> None:
    """Of the (tokens, R) tensors only the one that U's gradient needs is kept, u and v beside."""
    down, up = bert_linear(64, 16), bert_linear(48, 64)
    x = torch.randn(2, 5, 64)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        up(kron_features(down(x)))
    tokens = 10
    weights = {down.weight.untyped_storage().data_ptr(), up.weight.untyped_storage().data_ptr()}
    of_tokens = sum(size for where, size in kept.items() if where not in weights)
    assert of_tokens == tokens * (64 + 16 + 48)


def test_order_of_the_factors_is_a_permutation_of_u() -> None:
    down, up = maps(10, 20)
    x = torch.randn(6, 10, dtype=torch.float64)
    u, v = down.both(x).split([4, 5], dim=-1)
    swapped = torch.stack([torch.kron(b, a) for a, b in zip(u, v, strict=True)])
    order = torch.arange(20).view(4, 5).t().reshape(-1)
    found = nn.functional.linear(nn.functional.gelu(swapped), up.weight[:, order], up.bias)
    torch.testing.assert_close(found, up(down(x)), rtol=1e-12, atol=1e-12)
    other = nn.functional.linear(nn.functional.gelu(swapped), up.weight, up.bias)
    assert (found - other).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["adakron", "madakron-full", "madakron-partial", "adamix"])
def test_first_draws(name: str, backbone: Any) -> None:
    """Every matrix is N(0, 0.02), U too, every expert its own; biases are zero."""
    method = METHODS.get(name)
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        encoder = backbone.encoder()
        settings = method.settings(**{**method.defaults, "bottleneck": 48})
        drawn.append(attach(encoder, method, settings, "mine").parameters)
    matrices = {key: value for key, value in drawn[0].items() if not key.endswith("bias")}
    assert len(matrices) in {4, 6}  # of two layers
    seen = []
    for key, value in drawn[0].items():
        assert value.requires_grad
        assert torch.equal(value, drawn[1][key])
        if key in matrices:
            assert value.std().item() == pytest.approx(0.02, rel=0.2)
            assert abs(value.mean().item()) < 0.005
            seen += list(value) if value.ndim == 3 else [value]
        else:
            assert not value.any()
    for index, one in enumerate(seen):
        for other in seen[:index]:
            assert one.shape != other.shape or (one - other).abs().max() > 0.02


def test_sources_together_pass_the_gradient_of_sources_alone(backbone: Any, jiggle: Any) -> None:
    encoder = backbone.encoder()
    names = [f"source{index}" for index in range(3)]
    for index, name in enumerate(names):
        tuned = attach(encoder, METHODS.get("adakron"), AdaKronSettings(bottleneck=12), name)
        jiggle(tuned.parameters.values(), 0.4, seed=index)
    encoder.double()
    sites = [core_modules(encoder, name)["1.output_adapter"] for name in names]
    bank = Bank([as_source(s, encoder.adapters_config.get(names[0])) for s in sites])
    assert len(bank.groups) == 1
    z = torch.randn(2, 5, 48, dtype=torch.float64, requires_grad=True)
    omega = torch.randn(3, 48, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(2, 5, 48, dtype=torch.float64)
    together = bank.mix(z, *bank.fold(omega))
    alone = torch.stack([s.adapter_up(s.adapter_down(z)) for s in sites], dim=-2)
    for one, other in zip(
        torch.autograd.grad(together, [z, omega], cotangent),
        torch.autograd.grad((alone * omega).sum(-2), [z, omega], cotangent),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
