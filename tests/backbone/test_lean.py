"""Fewer calls, the same numbers: attention while training, a LoRA at a linear."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from adapters.composition import Parallel, Stack
from adapters.methods.lora import LoRALinearTorch
from bases_bench import ready
from torch import Tensor, nn

from mtl.backbone import lean
from mtl.backbone.arch import archs
from mtl.methods import METHODS, RunFacts, attach

SETTINGS: list[dict[str, Any]] = [
    {},
    {"modules": "q,k,v,intermediate,output", "alpha": 12.0, "dropout": 0.1},
    {"rank": 1, "alpha": 3.0},
]


def with_lora(kind: str, values: dict[str, Any], *, stock: bool) -> Any:
    """A tiny encoder with dropout and a LoRA, which ``adapters`` and torch compute alone."""
    encoder, method = ready(kind), METHODS.get("lora")
    torch.manual_seed(3)
    attach(encoder, method, method.settings(**values), "own", RunFacts(4, "two_layer"))
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
        if stock and isinstance(module, lean._LoRASeam):
            module.__class__ = LoRALinearTorch
        # the matrices of eager types are not copied, which is another result and an older choice
        if stock and type(module).forward.__globals__.get(lean.MATCH) is lean._laid_out:
            module.__class__ = type(module).__mro__[1]
    return encoder.train()


def batches() -> list[dict[str, Tensor]]:
    torch.manual_seed(5)
    found = []
    for tokens in (7, 8, 5):
        mask = torch.ones(3, tokens, dtype=torch.long)
        if tokens != 5:  # without padding there is no mask in most types
            mask[1, 4:] = 0
        found.append({"input_ids": torch.randint(5, 60, (3, tokens)), "attention_mask": mask})
    return found


def trained(encoder: Any) -> list[Tensor]:
    """Outputs of some steps and of an evaluation, and what was trained."""
    own = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    adam, found = torch.optim.AdamW(own, lr=1e-2), []
    given = batches()
    for batch in given:
        states = encoder(**batch).last_hidden_state
        (states * torch.randn_like(states)).sum().backward()
        adam.step()
        adam.zero_grad()
        found.append(states.detach())
    encoder.eval()
    with torch.no_grad():
        found += [encoder(**batch).last_hidden_state for batch in given]
    return found + [parameter.detach() for parameter in own]


@pytest.mark.parametrize("kind", sorted(archs()))
def test_steps_are_those_of_adapters_and_torch_bit_for_bit(kind: str) -> None:
    for values in SETTINGS:
        ours = trained(with_lora(kind, values, stock=False))
        theirs = trained(with_lora(kind, values, stock=True))
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_the_short_ways_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    attended, added = lean.attended, lean._Added.apply
    monkeypatch.setattr(lean, "attended", lambda *a: taken.append("attention") or attended(*a))
    monkeypatch.setattr(lean._Added, "apply", lambda *a: taken.append("lora") or added(*a))
    encoder = with_lora("roberta", {}, stock=False)
    layers = encoder.config.num_hidden_layers
    encoder(**batches()[0])
    assert sorted(taken) == ["attention"] * layers + ["lora"] * 2 * layers
    taken.clear()
    encoder.eval()(**batches()[0])
    assert taken == ["lora"] * 2 * layers  # without dropout torch has a fused kernel


@pytest.mark.parametrize("masked", [-math.inf, torch.finfo(torch.float32).min])
def test_a_row_that_is_masked_as_a_whole(masked: float) -> None:
    """Torch makes zeros of it where the mask is infinite, and weights alike where it is not."""
    mask = torch.zeros(2, 1, 3, 3)
    mask[1] = masked
    query, key, value = torch.randn(3, 2, 2, 3, 4).unbind()
    found = []
    for attention in (lean._attention, nn.functional.scaled_dot_product_attention):
        torch.manual_seed(1)
        found.append(attention(query, key, value, mask, 0.25))
    assert torch.equal(*found)
    assert torch.isfinite(found[0]).all()


def test_bf16_and_several_loras_at_once_go_the_long_way() -> None:
    encoder = with_lora("bert", {}, stock=False).eval()
    stock = with_lora("bert", {}, stock=True).eval()
    batch = batches()[0]
    for each in (encoder, stock):
        with torch.autocast("cpu", torch.bfloat16):
            each.bf16 = each(**batch).last_hidden_state
        each.add_adapter("other", config="lora")
        setup: Any
        for setup in (Stack("own", "other"), Parallel("own", "other")):
            each.set_active_adapters(setup)
            setattr(each, type(setup).__name__, each(**batch).last_hidden_state)
        each.set_active_adapters(None)
        each.none = each(**batch).last_hidden_state
    assert torch.equal(encoder.bf16, stock.bf16)
    assert torch.equal(encoder.none, stock.none)
    assert len(encoder.Parallel) == 2 * len(batch["input_ids"])
    for name in ("Stack", "Parallel"):
        assert getattr(encoder, name).shape == getattr(stock, name).shape
