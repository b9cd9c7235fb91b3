"""ProPETL-m: one prototype adapter for all tasks and layers, under masks of task and layer."""

from __future__ import annotations

from dataclasses import dataclass

from mtl.errors import RequestError, unknown
from mtl.joint.joint_method import TRAINING, JointMethod
from mtl.joint.sampler import Sampling
from mtl.joint.written import SiteSettings, placement
from mtl.lazy import later

COMBINE = ("or", "and", "add", "task")


@dataclass(frozen=True)
class ProPETLMSettings(Sampling, SiteSettings):
    """``(U ⊙ M_u) act((D ⊙ M_d) z + c) + b`` with one D, U, c, b for all tasks and layers.

    The mask of task t at layer l is M_t OR M_l, ``1 − (1 − M_t)(1 − M_l)``; each of the two keeps
    the top share of its |scores|, with gradients straight through; biases are not masked
    (Zeng et al. 2023, arXiv:2305.17682). Stored: the prototype's floats and one bit per entry of
    every task's and every layer's mask, 2·D·R each.

    Attributes:
        keep: share of entries that each mask keeps.
        combine: ``or``, ``and`` (product), ``add`` (sum), or ``task`` (no layer masks).
        tie_layer_scores: as the reference by mistake, layer 0 uses the scores of the last task.
        mask_lr_factor: learning rate of the scores over the run's.
    """

    keep: float = 0.3
    combine: str = "or"
    tie_layer_scores: bool = False
    mask_lr_factor: float = 10.0

    def __post_init__(self) -> None:
        Sampling.__post_init__(self)
        SiteSettings.__post_init__(self)
        if not 0 < self.keep <= 1:
            raise RequestError(f"keep={self.keep} must be above 0 and at most 1.")
        if self.combine not in COMBINE:
            raise unknown("combine", self.combine, COMBINE)
        if not self.mask_lr_factor >= 0:
            raise RequestError(f"mask_lr_factor={self.mask_lr_factor} must not be negative.")
        if self.tie_layer_scores and self.combine == "task":
            raise RequestError(
                "tie_layer_scores=true needs layer masks, and combine=task has none."
            )


METHOD = JointMethod(
    name="propetl-m",
    settings=ProPETLMSettings,
    summary="one prototype adapter for all tasks and layers, under masks of task and layer",
    citation="Zeng et al. 2023, ProPETL, arXiv:2305.17682",
    attach=later("mtl.joint.modules.propetl_m:attach"),
    load=later("mtl.joint.modules.propetl_m:load"),
    training=TRAINING,
    placement=placement,
)
