"""SoRA: LoRA whose ranks are gated, and whose gates are driven to zero while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtl.engine.settings import Training
from mtl.errors import RequestError, unknown
from mtl.lazy import later
from mtl.methods.low_rank import (
    canonical,
    check_rank,
    placement,
    source_loader,
)
from mtl.methods.method import HeadSettings, Method

THRESHOLDS = ("reference", "soft")


@dataclass(frozen=True)
class SoRASettings(HeadSettings):
    """``delta(x) = (alpha/R) · ((dropout(x)·A^T) ⊙ g)·B^T`` beside every chosen linear module.

    A (R,in) starts kaiming-uniform (a = √5), B (out,R) at zero, the gates g (R,) as N(0,1). The
    loss gets ``eta · mean |g|`` over all gates. After every optimiser step the gates pass a
    threshold at xi, not scaled by the learning rate; a gate at zero still gets a gradient and can
    come back. Whatever ``adam_form`` the run has, gates have the reference's AdamW (``hf``, eps
    1e-6, no decay): some get gradients of the size of that eps. What is stored is without the
    ranks whose gate ended at zero, at the scale alpha/R (Ding et al. 2023).

    With a schedule, stage k of n has xi on the linear grid from ``xi`` to ``xi_max``, the first
    for the run's epochs, the others for ``stage_epochs``. Every stage has a warm-up and a schedule
    of its own (the reference's later stages ran at rate 0 and lost all gates), and each goes on
    from the last state of the one before; the best state of the last stage is kept.

    Attributes:
        rank: R, the largest rank of a site.
        alpha: the scale times R.
        dropout: on x, while training.
        eta: weight of the L1 term (``sparse_lambda``).
        xi: threshold (``sparse_lambda_2``), 0 for none.
        threshold: ``reference``: g shrinks by xi and dies below 2·xi; ``soft``: the textbook soft
            threshold, which dies below xi.
        schedule_stages: number of stages, 1 for no schedule.
        xi_max: xi of the last stage.
        stage_epochs: length of the stages after the first.
        train_head: see :class:`~mtl.methods.method.HeadSettings`.
        modules: of ``q``, ``k``, ``v``, ``attention``, ``intermediate``, ``output``, separated by
            commas, or ``all``.
    """

    LATER: ClassVar[tuple[str, ...]] = ()  # its entries have always told of the head

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    eta: float = 10.0
    xi: float = 3e-4
    threshold: str = "reference"
    schedule_stages: int = 1
    xi_max: float = 7e-4
    stage_epochs: int = 15
    modules: str = "all"

    def __post_init__(self) -> None:
        check_rank(self.rank, self.alpha, self.dropout)
        canonical(self)
        if self.threshold not in THRESHOLDS:
            raise unknown("threshold", self.threshold, THRESHOLDS)
        if self.eta < 0 or self.xi < 0:
            raise RequestError(f"eta={self.eta} and xi={self.xi} must not be negative.")
        if self.schedule_stages < 1 or self.stage_epochs < 1:
            raise RequestError(
                f"schedule_stages={self.schedule_stages} and stage_epochs={self.stage_epochs} must "
                "be at least 1."
            )
        if self.schedule_stages > 1 and self.xi_max < self.xi:
            raise RequestError(
                f"xi_max={self.xi_max} is below xi={self.xi}: the schedule raises the threshold "
                "from xi to xi_max."
            )

    def grid(self) -> list[float]:
        """xi of every stage."""
        last = max(self.schedule_stages - 1, 1)
        step = (self.xi_max - self.xi) / last
        return [self.xi + k * step for k in range(self.schedule_stages)]


METHOD = Method(
    name="sora",
    settings=SoRASettings,
    summary="low-rank products with gated ranks; gates are driven to zero and dropped",
    citation="Ding et al. 2023, arXiv:2311.11696",
    training=Training(
        "TsinghuaC3I/SoRA, sora_no_schedule, of STS-B",
        {
            "lr": 8e-4,
            "epochs": 20,
            "batch_size": 8,
            "warmup": 0.06,
            "weight_decay": 0.1,
            "clip": 0.1,
            "select": "metric",
            "patience": 0,
        },
    ),
    attach=later("mtl.methods.modules.sora:attach"),
    load=later("mtl.methods.modules.sora:load"),
    placement=placement,
    composes="low_rank",
    load_source=source_loader(later("mtl.methods.modules.sora:read")),
)
