"""Adapter sites whose weights are tensors made for a task, before every forward pass.

HyperFormer generates them, ProPETL-m masks a prototype; both make those of all layers at once, as a
function of the task and their parameters, and the sites only compute with what they are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.backbone.cores import CORES
from mtl.errors import RequestError, unknown
from mtl.lazy import later
from mtl.methods.pfeiffer import ACTIVATIONS, bottleneck_size, exact_reduction_factor
from mtl.methods.placement import placement_fields, signature_of

if TYPE_CHECKING:
    from mtl.backbone.injection import CoreConfig


@dataclass(frozen=True)
class SiteSettings:
    """The bottleneck at every site, after the FFN of each layer.

    Attributes:
        reduction_factor: R = D // reduction_factor.
        bottleneck: R itself, 0 to go by the reduction factor.
        activation: between the two maps.
    """

    reduction_factor: float = 16.0
    bottleneck: int = 0
    activation: str = "relu"

    def __post_init__(self) -> None:
        if not self.reduction_factor > 0:
            raise RequestError(f"reduction_factor={self.reduction_factor} must be above 0.")
        if self.bottleneck < 0:
            raise RequestError(f"bottleneck={self.bottleneck} must not be negative.")
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)


def bottleneck_of(settings: SiteSettings, hidden_size: int) -> int:
    """R for a hidden size D. Raises RequestError where the factor leaves none."""
    return bottleneck_size(settings.reduction_factor, settings.bottleneck, hidden_size)


def config_of(settings: SiteSettings, hidden_size: int) -> CoreConfig:
    from mtl.backbone.injection import CoreConfig

    return CoreConfig(
        reduction_factor=exact_reduction_factor(bottleneck_of(settings, hidden_size), hidden_size),
        non_linearity="relu",  # the core brings its own
        core="written",
        options={"activation": settings.activation},
        **placement_fields("pfeiffer"),
    )


def placement(settings: SiteSettings, hidden_size: int) -> dict[str, Any]:
    """The placement signature of the sites."""
    bottleneck_of(settings, hidden_size)
    return signature_of("pfeiffer")


CORES["written"] = later("mtl.joint.modules.written:build")
