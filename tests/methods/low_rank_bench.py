"""What the tests of low-rank methods share: a changed adapter, stored and loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mtl.backbone import load_backbone
from mtl.methods import METHODS, attach, load
from mtl.methods.tuned import Tuned

TYPES = ["roberta", "bert", "xlm-roberta", "deberta-v2"]


def last(encoder: Any, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """The last hidden states, without a graph."""
    with torch.no_grad():
        return encoder(**tokens).last_hidden_state


def changed(encoder: Any, method: str, jiggle: Any, scale: float = 0.3, **values: Any) -> Tuned:
    """``method`` attached, every parameter random."""
    chosen = METHODS.get(method)
    tuned = attach(encoder, chosen, chosen.settings(**values), "mine")
    jiggle(tuned.parameters.values(), scale)
    return tuned


def check_round_trip(
    method: str,
    folder: str,
    tokens: dict[str, torch.Tensor],
    jiggle: Any,
    target: Path,
    files: set[str],
    **values: Any,
) -> None:
    """Store, load in a fresh encoder, compare with the trained one; store the loaded one again.

    Loaded under another name it computes the same; under its own it is stored with equal bytes
    (the files of ``adapters`` carry the name, as those of a run carry the entry's).
    """
    chosen = METHODS.get(method)
    backbone = load_backbone(folder)
    encoder = backbone.encoder()
    plain = last(encoder, tokens)
    tuned = changed(encoder, method, jiggle, **values)
    if tuned.finish:
        tuned.finish()
    expected = last(encoder, tokens)
    # keys alone change little in these encoders
    assert (expected - plain).abs().max() > 1e-4
    tuned.save(target / "one", "some/base")
    assert {path.name for path in (target / "one").iterdir()} == files
    settings = chosen.settings(**values)
    for name in ("another", "mine"):
        other = backbone.encoder()
        again = load(other, chosen, settings, name, target / "one", active=True)
        assert not any(parameter.requires_grad for parameter in other.parameters())
        torch.testing.assert_close(last(other, tokens), expected, rtol=0, atol=2e-6)
    again.save(target / "two", "some/base")
    for file in files:
        assert (target / "one" / file).read_bytes() == (target / "two" / file).read_bytes(), file


def check_trains_alone(encoder: Any, tuned: Tuned, tokens: dict[str, torch.Tensor]) -> None:
    """Exactly the method's parameters ask for gradients, and all of them get one."""
    assert {id(p) for p in encoder.parameters() if p.requires_grad} == {
        id(p) for p in tuned.parameters.values()
    }
    assert not any("mine" in name for name in tuned.parameters)
    encoder(**tokens).last_hidden_state.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in tuned.parameters.values())
