"""Hadamard adapter: an element-wise scale and shift of the self-attention output."""

from __future__ import annotations

from dataclasses import dataclass

from mtl.engine.settings import Training
from mtl.errors import RequestError, unknown
from mtl.lazy import later
from mtl.methods.base_tensors import CHANGES_BASE
from mtl.methods.method import Method

POSITIONS = ("projected", "raw")
NORMS = ("attention", "output", "none")


@dataclass(frozen=True)
class HadamardSettings:
    """Per layer ``a' = w ⊙ a + b``, w starting at 1 and b at 0 (Chen et al. 2023).

    Training has two stages: first the head alone, then w, b and one LayerNorm per layer with the
    head frozen. 2·L·D parameters, and 2·L·D of LayerNorms: 36,864 on BERT-base. The paper's text
    leaves position and LayerNorm open, so both are settings.

    Attributes:
        position: a is the attention output after its output projection (``projected``), or before
            it (``raw``).
        layer_norm: the LayerNorm that trains: behind the ``attention``, behind the FFN
            (``output``), or ``none``.
        head_epochs: length of the first stage, 0 for the run's.
    """

    position: str = "projected"
    layer_norm: str = "attention"
    head_epochs: int = 0

    def __post_init__(self) -> None:
        if self.position not in POSITIONS:
            raise unknown("position", self.position, POSITIONS)
        if self.layer_norm not in NORMS:
            raise unknown("layer_norm", self.layer_norm, NORMS)
        if self.head_epochs < 0:
            raise RequestError(f"head_epochs={self.head_epochs} must not be negative.")


METHOD = Method(
    name="hadamard",
    settings=HadamardSettings,
    summary="scale and shift of the attention output, and the LayerNorm after it; two stages",
    citation="Chen et al. 2023, arXiv:2407.11033",
    training=Training(
        "no rate is known from its paper; of pfeiffer adapters, CPJKU/ScaLearn, src/scripts/st-a",
        {"lr": 3e-4, "epochs": 30, "patience": "5 epochs"},
    ),
    attach=later("mtl.methods.modules.hadamard:attach"),
    load=later("mtl.methods.modules.hadamard:load"),
    refusal=CHANGES_BASE,
    weights=lambda settings: "delta",
)
