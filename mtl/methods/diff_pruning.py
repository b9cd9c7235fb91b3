"""Diff pruning: a sparse difference to the base's weights, found by relaxed L0 gates."""

from __future__ import annotations

from dataclasses import dataclass

from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.lazy import later
from mtl.methods.base_tensors import CHANGES_BASE
from mtl.methods.method import Method

CUT = 1e-4
"""u is drawn from [CUT, 1 - CUT]."""


@dataclass(frozen=True)
class DiffPruningSettings:
    """``theta = theta_0 + z ⊙ z_g · w`` for every base tensor (Guo et al. 2021).

    w starts at 0. ``z = clamp(sigmoid(logit(u) + a)·(HIGH − LOW) + LOW, 0, 1)`` per entry with u
    uniform while training (u = 1/2 in evaluation); z_g likewise with one a per tensor. Penalty
    ``sparsity · Σ sigmoid(a − ln(−LOW/HIGH))``. Then only the ``density`` largest ``|z z_g w|`` are
    kept, and w trains on at those places. Training holds three copies of the base.

    Attributes:
        density: share of all entries that may differ in the end.
        sparsity: weight of the penalty.
        alpha_start: a at the start.
        alpha_lr: constant learning rate of a.
        group_gate: whether z_g is used.
        finetune_epochs: length of the stage after pruning.
        finetune_lr_factor: its learning rate over the run's.
    """

    density: float = 0.005
    sparsity: float = 1.25e-7
    alpha_start: float = 5.0
    alpha_lr: float = 0.1
    group_gate: bool = True
    finetune_epochs: int = 3
    finetune_lr_factor: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise RequestError(f"density={self.density} must be above 0 and at most 1.")
        for name in ("sparsity", "alpha_lr", "finetune_lr_factor"):
            if getattr(self, name) < 0:
                raise RequestError(f"{name}={getattr(self, name)} must not be negative.")
        if self.finetune_epochs < 1:
            raise RequestError(f"finetune_epochs={self.finetune_epochs} must be at least 1.")


METHOD = Method(
    name="diff-pruning",
    settings=DiffPruningSettings,
    summary="a sparse difference to all weights, by L0 gates; gates, pruning, fine-tuning",
    training=Training(
        "dguo98/DiffPruning, its GLUE example",
        {"lr": 1e-05, "epochs": 3, "batch_size": 8, "patience": 0},
    ),
    citation="Guo et al. 2021, arXiv:2012.07463",
    attach=later("mtl.methods.modules.diff_pruning:attach"),
    load=later("mtl.methods.modules.diff_pruning:load"),
    refusal=CHANGES_BASE,
    weights=lambda settings: "delta",
    adds=False,
)
