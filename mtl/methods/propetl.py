"""ProPETL: one prototype adapter for all layers, and a binary mask of it per layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.backbone.cores import CORES
from mtl.engine.settings import Training
from mtl.errors import RequestError, unknown
from mtl.lazy import later
from mtl.methods.core import core_config
from mtl.methods.library import activate
from mtl.methods.method import Method
from mtl.methods.pfeiffer import ACTIVATIONS, bottleneck_size
from mtl.methods.placement import ALL_PLACEMENTS, signature_of

if TYPE_CHECKING:
    from mtl.backbone.injection import CoreConfig


@dataclass(frozen=True)
class ProPETLSettings:
    """``(U ⊙ M_u,l) act((D ⊙ M_d,l) z + c) + b`` at site l; D, U, c, b shared by all sites.

    The masks keep the top share of |score|, with gradients straight through; biases are not masked
    (Zeng et al. 2023). Stored: the prototype's floats (74,544 on RoBERTa-base) and
    one bit per mask entry (2·D·R per site).

    Attributes:
        reduction_factor: R = D // reduction_factor.
        bottleneck: R itself, 0 to go by the reduction factor.
        keep: share of entries that a mask keeps.
        learn_masks: False keeps the masks of the random scores, as a reference implementation does
            by mistake.
        mask_lr_factor: learning rate of the scores over the run's.
        activation: act.
        placement: ``pfeiffer``, ``houlsby``, ``parallel`` or ``paper``.
    """

    reduction_factor: float = 16.0
    bottleneck: int = 0
    keep: float = 0.5
    learn_masks: bool = True
    mask_lr_factor: float = 5.0
    activation: str = "relu"
    placement: str = "pfeiffer"

    def __post_init__(self) -> None:
        if not self.reduction_factor > 0:
            raise RequestError(f"reduction_factor={self.reduction_factor} must be above 0.")
        if self.bottleneck < 0:
            raise RequestError(f"bottleneck={self.bottleneck} must not be negative.")
        if not 0 < self.keep <= 1:
            raise RequestError(f"keep={self.keep} must be above 0 and at most 1.")
        if not self.mask_lr_factor >= 0:
            raise RequestError(f"mask_lr_factor={self.mask_lr_factor} must not be negative.")
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.placement not in ALL_PLACEMENTS:
            raise unknown("placement", self.placement, ALL_PLACEMENTS)


def size_of(settings: ProPETLSettings, hidden_size: int) -> int:
    return bottleneck_size(settings.reduction_factor, settings.bottleneck, hidden_size)


def config_of(settings: ProPETLSettings, hidden_size: int) -> CoreConfig:
    return core_config("propetl", settings, size_of(settings, hidden_size), hidden_size)


def _placement(settings: ProPETLSettings, hidden_size: int) -> dict[str, Any]:
    size_of(settings, hidden_size)
    return signature_of(settings.placement)


CORES["propetl"] = later("mtl.methods.modules.propetl:build")

METHOD = Method(
    name="propetl",
    settings=ProPETLSettings,
    summary="one bottleneck adapter shared by all layers, under a learned mask per layer",
    defaults={"reduction_factor": 12.0, "mask_lr_factor": 30.0},
    training=Training(
        "ChaosCodes/ProPETL, propetl-roberta, run_adapter.sh",
        {
            "lr": 1e-4,
            "epochs": 20,
            "batch_size": 128,
            "warmup": 0.1,
            "weight_decay": 0.1,
            "select": "metric",
            "patience": 0,
        },
    ),
    citation="Zeng et al. 2023, ProPETL, arXiv:2305.17682",
    attach=later("mtl.methods.modules.propetl:attach"),
    load=later("mtl.methods.modules.propetl:load"),
    activate=activate,
    placement=_placement,
    composes="bottleneck",
)
