"""MAdaKron: AdaKron whose down-projections are mixtures of experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtl.errors import RequestError, unknown
from mtl.lazy import later
from mtl.methods.adakron import (
    TRAINING,
    check_bottleneck,
)
from mtl.methods.experts import check_level, mixture_method
from mtl.methods.placement import ALL_PLACEMENTS


@dataclass(frozen=True)
class MAdaKronSettings:
    """AdaKron with ``u = D_2[e] z`` and, in the full form, ``v = D_1[e'] z``; e, e' drawn apart.

    Merged by averaging each mixture, which gives an AdaKron adapter. The partial form routes the
    4-wide projection only. No code of it for GLUE was published; this follows its code
    for GPT-2 and its README, and two experts are an assumption.

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


def _method(name: str, summary: str, **defaults: Any) -> Any:
    return mixture_method(
        name,
        MAdaKronSettings,
        core="madakron",
        merged="adakron",
        build=later("mtl.methods.modules.madakron:build"),
        summary=summary,
        citation="AdaKron, DetectiveMB/AdaKron (code, for GPT-2)",
        training=TRAINING,
        defaults=defaults,
    )


FULL = _method("madakron-full", "AdaKron, experts in both down-projections, merged", full=True)
PARTIAL = _method("madakron-partial", "AdaKron, experts in the 4-wide one, merged", full=False)
