"""Bases held in fewer bits: half the memory, the same function of rounded weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from mtl.backbone.arch import archs, tiny_config
from mtl.backbone.backbones import Backbone, load_backbone
from mtl.backbone.building import build, config_to_load
from mtl.backbone.held import HeldBackbone, check_nf4, hold
from mtl.backbone.injection import freeze, init
from mtl.data import load_data
from mtl.errors import RequestError
from mtl.tasks import load_task

TYPES = list(archs())


@dataclass
class Given(Backbone):  # type: ignore[misc]
    """A base that is already in memory."""

    model: Any

    @property
    def pristine(self) -> Any:
        return self.model

    def __hash__(self) -> int:
        return id(self)


def given(kind: str) -> Any:
    arch = archs()[kind]
    config = config_to_load(tiny_config(kind, vocab_size=60, pad_token_id=1), arch)
    torch.manual_seed(7)
    return Given(build(config, arch).eval())


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 60, (4, 11), generator=generator)
    ids[1, 7:] = ids[2, 4:] = 1
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


@torch.no_grad()
def states(encoder: Any) -> torch.Tensor:
    return encoder(**batch()).last_hidden_state


@pytest.mark.parametrize("kind", TYPES)
def test_in_fp32_it_is_the_function_of_the_rounded_weights_bit_for_bit(kind: str) -> None:
    whole = given(kind)
    before = states(whole.pristine)
    held = hold(whole, "bf16")
    encoder = held.encoder()
    rounded = init(copy.deepcopy(held.pristine))
    assert torch.equal(states(encoder), states(rounded.eval()))
    assert not torch.equal(states(encoder), before)
    assert torch.equal(states(whole.pristine), before)
    # the same parameters under the same names, of which the large ones take half the memory
    sizes = {name: value.nbytes for name, value in rounded.named_parameters()}
    own = {name: value.nbytes for name, value in encoder.named_parameters()}
    assert own.keys() == sizes.keys()
    halved = [name for name in own if own[name] * 2 == sizes[name]]
    assert sum(own[name] for name in own) < 0.6 * sum(sizes.values())
    assert all(own[name] == sizes[name] for name in own.keys() - set(halved))
    assert not any(value.requires_grad for value in encoder.parameters())


@pytest.mark.parametrize("method", ["pfeiffer", "lora", "sora", "adakron"])
@pytest.mark.parametrize("kind", ["bert", "modernbert", "gpt2", "llama", "gemma3_text"])
def test_adapters_on_it_are_fp32_and_train(kind: str, method: str) -> None:
    from mtl.methods import METHODS, attach

    held = hold(given(kind), "bf16")
    for bf16 in (False, True):
        encoder = held.encoder()
        chosen = METHODS.get(method)
        tuned = attach(encoder, chosen, chosen.settings(**chosen.defaults), "mine")
        trained = [value for group in tuned.groups for value in group.parameters.values()]
        assert {value.dtype for value in trained} == {torch.float32}
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found = encoder(**batch()).last_hidden_state
        found.float().square().sum().backward()
        assert any(value.grad is not None and value.grad.abs().max() > 0 for value in trained)
        assert torch.isfinite(found).all()


def test_it_can_be_asked_for_again_and_taken_back() -> None:
    whole = given("bert")
    held = hold(whole, "bf16")
    assert isinstance(held, HeldBackbone)
    assert hold(held, "bf16") is held
    assert hold(held, "fp32") is whole
    assert hold(whole, "fp32") is whole


def test_a_copy_is_held_as_well() -> None:
    encoder = hold(given("llama"), "bf16").encoder()
    other = copy.deepcopy(encoder)
    freeze(other)
    assert torch.equal(states(other), states(encoder))
    linear = other.layers[0].mlp.up_proj
    assert isinstance(linear, nn.Linear)
    assert next(linear.parameters()).dtype == torch.bfloat16


def test_four_bits_are_refused_where_they_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    import mtl.backbone.held as module

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="pip install bitsandbytes"):
        check_nf4()
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RequestError, match="needs a GPU"):
        hold(given("llama"), "nf4")


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_rows_are_encoded_without_another_copy_of_the_base(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mtl.backbone.held_encoder as encoders

    monkeypatch.setattr("mtl.backbone.held.check_nf4", lambda: None)
    monkeypatch.setattr(encoders, "rounded", lambda base: pytest.fail("rounds a whole base"))
    whole = load_backbone("demo")
    data = load_data(load_task("demo/sentiment"), max_eval_samples=20)
    found = hold(whole, precision).encode(data, "dev")
    assert found.fingerprint == whole.encode(data, "dev").fingerprint
