"""(IA)³: learned scales on keys, values and the FFN's intermediate activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtl.engine.settings import Training
from mtl.methods.library import library_method

MULTIPLIES = (
    "it multiplies activations inside the layer, so there is no output that a scale could be put on"
)


@dataclass(frozen=True)
class IA3Settings:
    """(IA)³ has no settings: per layer ``k ⊙ l_k``, ``v ⊙ l_v`` and ``act(l_ff ⊙ (W·x + b))``.

    W and b are those of the FFN's first linear module. The paper scales behind the activation,
    ``l_ff ⊙ act(W·x + b)``; ``adapters``, with which ScaLearn's runs of it were made, before it.
    Every l starts at 1. L·(2·D + D_ffn) parameters: 55,296 on BERT-base.
    """


def _config(settings: IA3Settings, hidden_size: int) -> Any:
    from adapters import IA3Config

    return IA3Config()


METHOD = library_method(
    "ia3",
    IA3Settings,
    _config,
    summary="learned scales on keys, values and what the FFN's activation is of",
    citation="Liu et al. 2022, arXiv:2205.05638",
    training=Training(
        "CPJKU/ScaLearn, its IA3 runs", {"lr": 0.005, "epochs": 30, "patience": "5 epochs"}
    ),
    refusal=MULTIPLIES,
)
