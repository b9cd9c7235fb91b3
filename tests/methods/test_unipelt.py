"""UniPELT: its gates are means over the tokens of a text, whatever stands beside it in a batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mtl.backbone import load_backbone
from mtl.methods import attach, find_method
from mtl.methods.method import load, make_settings, settings_dict
from mtl.methods.modules.unipelt import gates


def settings_of(method: Any, **values: Any) -> Any:
    return make_settings(method.name, method.settings, {**method.defaults, **values})


def answers(encoder: Any, tokens: Any) -> torch.Tensor:
    """The first token's vector of every text."""
    return encoder(**tokens).last_hidden_state[:, 0]


def alone(encoder: Any, tokens: Any) -> torch.Tensor:
    """The same of one text after the other, without padding."""
    found = []
    for ids, mask in zip(tokens["input_ids"], tokens["attention_mask"], strict=True):
        kept = {"input_ids": ids[mask == 1][None], "attention_mask": mask[mask == 1][None]}
        found.append(answers(encoder, kept))
    return torch.cat(found)


@pytest.mark.parametrize("name", ["unipelt-ap", "unipelt-apl"])
def test_padding_changes_no_answer(
    name: str, encoder: Any, backbone: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    method = find_method(name)
    tuned = attach(encoder, method, settings_of(method), "own")
    assert len(list(gates(encoder, "own"))) == 2 * (2 if name == "unipelt-ap" else 4)
    jiggle(tuned.parameters.values(), 0.5)
    encoder.double().eval()
    tuned.save(tmp_path, backbone.base.id)
    assert (tokens["attention_mask"] == 0).any()
    torch.testing.assert_close(answers(encoder, tokens), alone(encoder, tokens))
    again = backbone.encoder()
    load(again, method, settings_of(method), "again", tmp_path, active=True)
    again.double().eval()
    torch.testing.assert_close(answers(again, tokens), answers(encoder, tokens))
    # as stock adapters have it, and entries of before
    plain = backbone.encoder()
    old = settings_of(method, gate_padding=True)
    load(plain, method, old, "plain", tmp_path, active=True)
    plain.double().eval()
    torch.testing.assert_close(alone(plain, tokens), alone(encoder, tokens))
    assert (answers(plain, tokens) - alone(plain, tokens)).abs().max() > 1e-3
    assert "gate_padding" not in settings_dict(old)
    assert settings_dict(settings_of(method))["gate_padding"] is False


def test_padding_changes_no_answer_beside_relative_positions(
    tiny: Callable[[str], str], jiggle: Any
) -> None:
    encoder, method = load_backbone(tiny("deberta-v2")).encoder(), find_method("unipelt-apl")
    tuned = attach(encoder, method, settings_of(method), "own")
    jiggle(tuned.parameters.values(), 0.5)
    encoder.double().eval()
    ids = torch.tensor([[2, 7, 8, 9, 6, 3], [2, 8, 3, 0, 0, 0]])
    tokens = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    torch.testing.assert_close(answers(encoder, tokens), alone(encoder, tokens))


def test_gradients_reach_the_gates_past_padding(encoder: Any, tokens: Any, jiggle: Any) -> None:
    method = find_method("unipelt-ap")
    tuned = attach(encoder, method, settings_of(method), "own")
    jiggle(tuned.parameters.values(), 0.5)
    encoder.double().eval()
    own = list(tuned.parameters.values())
    both = [
        torch.autograd.grad(found(encoder, tokens).square().sum(), own)
        for found in (answers, alone)
    ]
    for padded, single in zip(*both, strict=True):
        torch.testing.assert_close(padded, single)
