"""LoReFT: its rotation through training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mtl.engine import RunSettings
from mtl.engine.optimise import Optimiser
from mtl.methods import attach, find_method
from mtl.methods.loreft import LoReftSettings


@pytest.mark.parametrize("form", ["torch", "hf"])
@pytest.mark.parametrize("rank", [1, 3])
def test_rows_stay_orthonormal_under_weight_decay(
    encoder: Any, tokens: Any, rank: int, form: str
) -> None:
    """Torch cuts the signs of its Householder form to whole numbers: 0.9999 of one is nothing."""
    settings = LoReftSettings(rank=rank, dropout=0.0)
    tuned = attach(encoder, find_method("loreft"), settings, "own")
    run = RunSettings(lr=1e-2, weight_decay=0.1, adam_form=form)
    optimiser = Optimiser(tuned.groups, run, 5)
    rotations = [m.weight for m in _projections(encoder)]
    encoder.eval()
    for step in range(3):
        encoder(**tokens).last_hidden_state.square().sum().backward()
        optimiser.step(step)
        optimiser.clear()
    for before, layer in zip(rotations, _projections(encoder), strict=True):
        assert not torch.allclose(before, layer.weight)
        torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(rank))
    sources = [p for name, p in tuned.parameters.items() if name.endswith("learned_source.weight")]
    decayed = {
        id(p)
        for adam in optimiser.adams
        for group in adam.param_groups
        for p in group["params"]
        if group["weight_decay"]
    }
    assert decayed == {id(p) for p in sources}


def _projections(encoder: Any) -> list[Any]:
    return [m.projection for m in encoder.modules() if hasattr(m, "learned_source")]


@pytest.mark.parametrize(("ahead", "behind"), [(3, 0), (1, 2), (2, 6), (0, 6)])
def test_a_text_has_one_answer_however_short_it_is(
    encoder: Any, tokens: Any, jiggle: Any, ahead: int, behind: int
) -> None:
    """One text has four tokens, beside others of eleven."""
    settings = LoReftSettings(rank=2, prefix_positions=ahead, suffix_positions=behind)
    tuned = attach(encoder, find_method("loreft"), settings, "own")
    jiggle([p for name, p in tuned.parameters.items() if "learned_source" in name])
    encoder.eval()
    sizes = tokens["attention_mask"].sum(1).tolist()
    assert min(sizes) < 6 < max(sizes)
    together = encoder(**tokens).last_hidden_state
    for row, size in enumerate(sizes):
        alone = encoder(**{key: value[row : row + 1, :size] for key, value in tokens.items()})
        torch.testing.assert_close(
            alone.last_hidden_state[0], together[row, :size], rtol=0, atol=1e-5
        )
