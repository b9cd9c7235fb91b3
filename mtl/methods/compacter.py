"""Compacter and Compacter++: bottlenecks whose matrices are sums of Kronecker products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from adapters.methods.modeling import PHMLayer, kronecker_product
from torch import Tensor, nn

from mtl.backbone.injection import bottleneck_layers
from mtl.engine.settings import Training
from mtl.errors import RequestError, unknown
from mtl.methods.library import library_method
from mtl.methods.pfeiffer import ACTIVATIONS, bottleneck_size, exact_reduction_factor
from mtl.methods.placement import PLACEMENTS, signature

SITES = ("houlsby", "pfeiffer")


@dataclass(frozen=True)
class CompacterSettings:
    """A bottleneck with ``W = Σ_i A_i ⊗ (s_i t_i)``, i = 1 … phm_dim, for both projections.

    The A_i (phm_dim × phm_dim each) are one tensor for all sites; s_i and t_i have rank 1 and are
    each site's own, as are the biases (specs/adapter_methods §6.1).

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
    return PLACEMENTS[settings.placement](
        phm_layer=True,
        phm_dim=settings.phm_dim,
        reduction_factor=exact_reduction_factor(size, hidden_size),
        non_linearity=settings.activation,
    )


def dense(layer: PHMLayer, rule: Tensor) -> nn.Linear:
    """The PHM layer as a plain linear one; ``rule`` holds the A_i (n,n,n)."""
    matrix = kronecker_product(rule, torch.bmm(layer.W_left, layer.W_right)).sum(0)  # (in, out)
    inputs, outputs = matrix.shape
    linear = nn.Linear(inputs, outputs, device=matrix.device, dtype=matrix.dtype)
    linear.weight.copy_(matrix.t())
    linear.bias.copy_(layer.b)
    return linear.requires_grad_(False)


@torch.no_grad()
def as_plain(encoder: Any, settings: CompacterSettings, name: str) -> None:
    """Make a loaded adapter's maps dense: the same function, readable as a source.

    PHM layers find the A_i through the forward context of the *active* adapter, which a source is
    not.
    """
    rule = encoder.shared_parameters[name]["phm_rule"]
    for _, _, layer in bottleneck_layers(encoder):
        if name in layer.adapters:
            adapter = layer.adapters[name]
            down, activation = adapter.adapter_down
            adapter.adapter_down = nn.Sequential(dense(down, rule), activation)
            adapter.adapter_up = dense(adapter.adapter_up, rule)


def _method(name: str, summary: str, **defaults: Any) -> Any:
    return library_method(
        name,
        CompacterSettings,
        _config,
        summary=summary,
        citation="Karimi Mahabadi et al. 2021, arXiv:2106.04647; spec methods §6.1",
        training=Training(
            "spec composition §6.2", {"lr": 0.003, "epochs": 30, "patience": "5 epochs"}
        ),
        placement=lambda settings, width: signature(_config(settings, width)),
        composes="bottleneck",
        as_source=as_plain,
        defaults=defaults,
    )


COMPACTER = _method("compacter", "Kronecker bottlenecks after attention and FFN")
COMPACTER_PP = _method(
    "compacter++", "Kronecker bottlenecks after the FFN only", placement="pfeiffer"
)
