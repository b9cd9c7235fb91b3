"""How much goes through the network at once: by device, hidden size and the run's settings.

Pure functions of those, never of a measured time, so that a run is the same again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl.data import Passes

if TYPE_CHECKING:
    import torch

    from mtl.engine.settings import RunSettings

CPU_EVAL_TOKENS = 2048
"""From about 500 tokens on a CPU takes the same time for every token (docs/benchmarks.md)."""
OTHER_EVAL_TOKENS = 32768
"""A GPU wants many; 128 rows of 256 tokens. An estimate: not measured on one."""


def usual_passes(device: torch.device) -> Passes:
    """What goes through a network at once where no settings say it."""
    return Passes(tokens=CPU_EVAL_TOKENS if device.type == "cpu" else OTHER_EVAL_TOKENS)


def eval_passes(settings: RunSettings, device: torch.device) -> Passes:
    """What an evaluation of a run takes through the network at once."""
    return Passes(settings.eval_tokens or usual_passes(device).tokens, settings.eval_batch_size)


def piece_overhead(settings: RunSettings, device: torch.device, hidden_size: int) -> float:
    """What one more forward and backward pass costs, in tokens: ``piece_overhead`` or a guess.

    On a CPU the calls of small modules, and reading the weights once more: at one thread about 160
    tokens at D = 128, 50 at 384 and at 768 (``python benchmarks/batch_draws.py --cost``), and more
    in a whole step, where a cut that saves 160 at D = 128 gains nothing; so the guess is 457, 95
    and 61. On a GPU the launches: they do not grow with D, the work of a token does with D²; from
    3,000 tokens at D = 768, which is an estimate.
    """
    if settings.piece_overhead >= 0:
        return float(settings.piece_overhead)
    if device.type == "cpu":
        return 50.0 + 45.25 * (384.0 / hidden_size) ** 2
    return 3000.0 * (768.0 / hidden_size) ** 2
