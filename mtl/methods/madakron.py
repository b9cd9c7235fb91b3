"""MAdaKron: AdaKron whose down-projections are mixtures of experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtl.backbone.injection import CoreConfig
from mtl.errors import RequestError, unknown
from mtl.methods.adakron import (
    FACTOR,
    TRAINING,
    KronDown,
    KronSource,
    bert_linear,
    check_bottleneck,
    filled_linear,
    kron_features,
)
from mtl.methods.experts import Mixture, check_level, mixture_method
from mtl.methods.placement import ALL_PLACEMENTS


@dataclass(frozen=True)
class MAdaKronSettings:
    """AdaKron with ``u = D_2[e] z`` and, in the full form, ``v = D_1[e'] z``; e, e' drawn apart.

    Merged by averaging each mixture, which gives an AdaKron adapter. The partial form routes the
    4-wide projection only. No code of it for GLUE was published; this is the definition of
    specs/adapter_methods §2.3, and two experts are an assumption.

    Attributes:
        bottleneck: R, a multiple of 4.
        experts: E.
        full: whether both projections are mixtures.
        inference_level: 3 averages the experts, 1 and 0 route at random.
        consistency: adds the two-pass consistency loss (classification only).
        placement: ``pfeiffer``, ``houlsby``, ``parallel`` or ``paper``.
    """

    bottleneck: int = 48
    experts: int = 2
    full: bool = True
    inference_level: int = 3
    consistency: bool = False
    placement: str = "pfeiffer"

    def __post_init__(self) -> None:
        check_bottleneck(self.bottleneck)
        if self.experts < 1:
            raise RequestError(f"experts={self.experts} must be at least 1.")
        check_level(self.inference_level)
        if self.placement not in ALL_PLACEMENTS:
            raise unknown("placement", self.placement, ALL_PLACEMENTS)


class MixtureKron(nn.Module):
    """``GELU(outer(z) ⊗ inner(z))``: (B,T,D) → (B,T,R)."""

    def __init__(self, outer: Mixture, inner: Mixture) -> None:
        super().__init__()
        self.outer = outer
        self.inner = inner

    def forward(self, z: Tensor) -> Tensor:
        return kron_features(torch.cat([self.outer(z), self.inner(z)], dim=-1))

    @torch.no_grad()
    def merge(self) -> KronDown:
        """AdaKron's down map with the averaged experts."""
        parts = [self.outer.mean(), self.inner.mean()]
        weight, bias = (torch.cat(pair) for pair in zip(*parts, strict=True))
        return KronDown(filled_linear(weight, bias))

    def source(self, weight: Tensor, bias: Tensor) -> KronSource:
        """The frozen view for stage two: averaged, whatever the level."""
        return self.merge().source(weight, bias)


def _build(config: CoreConfig, hidden_size: int, size: int) -> tuple[nn.Module, nn.Module]:
    experts = config.options["experts"]
    inner = experts if config.options["full"] else 1
    down = MixtureKron(
        Mixture(experts, hidden_size, FACTOR), Mixture(inner, hidden_size, size // FACTOR)
    )
    return down, bert_linear(size, hidden_size)


def _method(name: str, summary: str, **defaults: Any) -> Any:
    return mixture_method(
        name,
        MAdaKronSettings,
        core="madakron",
        merged="adakron",
        build=_build,
        summary=summary,
        citation="AdaKron, DetectiveMB/AdaKron; spec methods §2.3",
        training=TRAINING,
        defaults=defaults,
    )


FULL = _method("madakron-full", "AdaKron, experts in both down-projections, merged", full=True)
PARTIAL = _method("madakron-partial", "AdaKron, experts in the 4-wide one, merged", full=False)
