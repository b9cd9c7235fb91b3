"""Draws that belong to an optimiser step are the same in all of its forward passes."""

from __future__ import annotations

import torch

from mtl.backbone.draws import PerStep, one_step


def test_one_draw_per_step_and_owner() -> None:
    count = iter(range(100))
    first: PerStep[int] = PerStep()
    second: PerStep[int] = PerStep()
    with one_step():
        assert [first(lambda: next(count)) for _ in range(3)] == [0, 0, 0]
        assert second(lambda: next(count)) == 1
        assert first(lambda: next(count)) == 0
    with one_step():
        assert first(lambda: next(count)) == 2


def test_outside_of_a_step_every_call_draws() -> None:
    draw: PerStep[int] = PerStep()
    count = iter(range(100))
    assert [draw(lambda: next(count)) for _ in range(3)] == [0, 1, 2]
    with one_step():
        assert draw(lambda: next(count)) == 3
    assert draw(lambda: next(count)) == 4


def test_pieces_of_a_step_share_the_mask_on_omega_and_the_expert() -> None:
    from mtl.compose.bank import Bank
    from mtl.compose.modules.scalearn import ScaLearnSite
    from mtl.compose.scalearn import ScaLearnSettings
    from mtl.methods.modules.experts import Mixture
    from mtl.methods.source import PlainSource

    sources = [
        PlainSource(torch.randn(2, 6), torch.zeros(2), "relu", torch.randn(6, 2), torch.zeros(6))
        for _ in range(3)
    ]
    site = ScaLearnSite(Bank(sources))
    site.bind(torch.ones(3, 6), ScaLearnSettings(dropout=0.5))
    mixture = Mixture(8, 4, 4)
    site.train()
    mixture.train()
    x = torch.randn(1, 5, 4)
    torch.manual_seed(0)
    masks, outputs = [], []
    for _ in range(6):
        with one_step():
            same = [site.effective() for _ in range(3)]
            assert torch.equal(same[0], same[1])
            assert torch.equal(same[0], same[2])
            masks.append(same[0])
            parts = [mixture(x) for _ in range(4)]
            assert all(torch.equal(parts[0], part) for part in parts)
            outputs.append(parts[0])
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 6
    assert len({tuple(output.flatten().tolist()) for output in outputs}) > 2
    assert set(torch.stack(masks).flatten().tolist()) == {0.0, 2.0}
