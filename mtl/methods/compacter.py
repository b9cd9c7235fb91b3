"""Compacter and Compacter++: bottlenecks whose matrices are sums of Kronecker products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtl.engine.settings import Training
from mtl.errors import RequestError, unknown
from mtl.lazy import later
from mtl.methods.library import library_method
from mtl.methods.pfeiffer import ACTIVATIONS, bottleneck_size, exact_reduction_factor
from mtl.methods.placement import signature_of, stock_config

SITES = ("houlsby", "pfeiffer")


@dataclass(frozen=True)
class CompacterSettings:
    """A bottleneck with ``W = Σ_i A_i ⊗ (s_i t_i)``, i = 1 … phm_dim, for both projections.

    The A_i (phm_dim × phm_dim each) are one tensor for all sites; s_i and t_i have rank 1 and are
    each site's own, as are the biases.

    Attributes:
        reduction_factor: R = D // reduction_factor.
        bottleneck: R itself, 0 to go by the reduction factor; a multiple of phm_dim.
        phm_dim: number and size of the A_i.
        activation: between the projections.
        placement: ``houlsby`` (Compacter) or ``pfeiffer`` (Compacter++).
    """

    reduction_factor: float = 32.0
    bottleneck: int = 0
    phm_dim: int = 4
    activation: str = "gelu"
    placement: str = "houlsby"

    def __post_init__(self) -> None:
        if not self.reduction_factor > 0:
            raise RequestError(f"reduction_factor={self.reduction_factor} must be above 0.")
        if self.bottleneck < 0:
            raise RequestError(f"bottleneck={self.bottleneck} must not be negative.")
        if self.phm_dim < 1:
            raise RequestError(f"phm_dim={self.phm_dim} must be at least 1.")
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.placement not in SITES:
            raise unknown("placement", self.placement, SITES)


def _size(settings: CompacterSettings, hidden_size: int) -> int:
    """R. By a factor it is the largest multiple of phm_dim that the factor leaves, at least one."""
    n = settings.phm_dim
    size = bottleneck_size(settings.reduction_factor, settings.bottleneck, hidden_size)
    if not settings.bottleneck:
        size = max(n, size // n * n)
    if size % n or hidden_size % n:
        raise RequestError(
            f"Compacter needs a bottleneck and a hidden size that are multiples of phm_dim={n}; "
            f"they are {size} and {hidden_size}."
        )
    return size


def _config(settings: CompacterSettings, hidden_size: int) -> Any:
    size = _size(settings, hidden_size)
    return stock_config(
        settings.placement,
        phm_layer=True,
        phm_dim=settings.phm_dim,
        reduction_factor=exact_reduction_factor(size, hidden_size),
        non_linearity=settings.activation,
    )


def _placement(settings: CompacterSettings, hidden_size: int) -> dict[str, Any]:
    _size(settings, hidden_size)
    return signature_of(settings.placement)


def _method(name: str, summary: str, **defaults: Any) -> Any:
    return library_method(
        name,
        CompacterSettings,
        _config,
        summary=summary,
        citation="Karimi Mahabadi et al. 2021, arXiv:2106.04647",
        training=Training(
            "CPJKU/ScaLearn, src/scripts/st-compacter",
            {"lr": 0.003, "epochs": 30, "patience": "5 epochs"},
        ),
        placement=_placement,
        composes="bottleneck",
        as_source=later("mtl.methods.modules.compacter:as_plain"),
        defaults=defaults,
    )


COMPACTER = _method("compacter", "Kronecker bottlenecks after attention and FFN")
COMPACTER_PP = _method(
    "compacter++", "Kronecker bottlenecks after the FFN only", placement="pfeiffer"
)
