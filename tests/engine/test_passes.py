"""How much goes through the network at once is a function of device, width and settings alone."""

from __future__ import annotations

import pytest
import torch

from mtl.data import Passes
from mtl.engine import RunSettings
from mtl.engine.passes import eval_passes, piece_overhead, usual_passes

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_a_pass_costs_more_tokens_where_tokens_are_cheap() -> None:
    guess = RunSettings()
    for device in (CPU, GPU):
        costs = [piece_overhead(guess, device, width) for width in (128, 384, 768, 1024)]
        assert costs == sorted(costs, reverse=True)
    assert piece_overhead(guess, CPU, 384) < piece_overhead(guess, GPU, 384)
    # a batch of 32 short texts through the demo encoder stays whole, one of 32 × 64 is cut
    assert 300 < piece_overhead(guess, CPU, 128) < 32 * 64 / 2


@pytest.mark.parametrize("asked", [0, 7, 10**9])
def test_what_the_user_says_goes_first(asked: int) -> None:
    assert piece_overhead(RunSettings(piece_overhead=asked), CPU, 384) == asked
    assert piece_overhead(RunSettings(piece_overhead=asked), GPU, 384) == asked


def test_evaluation_goes_by_the_device_unless_it_is_said() -> None:
    assert eval_passes(RunSettings(), CPU) == usual_passes(CPU)
    assert usual_passes(CPU).tokens < usual_passes(GPU).tokens
    said = RunSettings(eval_tokens=77, eval_batch_size=3)
    assert eval_passes(said, CPU) == eval_passes(said, GPU) == Passes(tokens=77, rows=3)
