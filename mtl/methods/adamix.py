"""AdaMix: bottleneck adapters whose projections are mixtures of experts, merged at the end."""

from __future__ import annotations

from dataclasses import dataclass

from mtl.errors import RequestError, unknown
from mtl.lazy import later
from mtl.methods.adakron import TRAINING
from mtl.methods.experts import check_level, mixture_method
from mtl.methods.placement import ALL_PLACEMENTS


@dataclass(frozen=True)
class AdaMixSettings:
    """``up_mix(GELU(down_mix(z)))`` per site; see :mod:`mtl.methods.experts`.

    Trains E_down·(D·R + R) + E_up·(R·D + D) per site, of which a single expert each is left:
    2,223,360 and 894,528 on BERT-base at R = 48, E = 4 with a shared up-projection.

    Attributes:
        bottleneck: R.
        experts: E of every mixture that is not shared.
        share_down, share_up: one expert in place of E.
        inference_level: 3 averages the experts, 1 and 0 route at random.
        consistency: adds the two-pass consistency loss (classification only).
        placement: ``pfeiffer``, ``houlsby``, ``parallel`` or ``paper``.
    """

    bottleneck: int = 48
    experts: int = 4
    share_down: bool = False
    share_up: bool = True
    inference_level: int = 3
    consistency: bool = True
    placement: str = "pfeiffer"

    def __post_init__(self) -> None:
        if self.bottleneck < 1:
            raise RequestError(f"bottleneck={self.bottleneck} must be at least 1.")
        if self.experts < 1:
            raise RequestError(f"experts={self.experts} must be at least 1.")
        check_level(self.inference_level)
        if self.placement not in ALL_PLACEMENTS:
            raise unknown("placement", self.placement, ALL_PLACEMENTS)


METHOD = mixture_method(
    "adamix",
    AdaMixSettings,
    core="adamix",
    merged="gelu",
    build=later("mtl.methods.modules.adamix:build"),
    summary="bottleneck adapter of randomly routed experts, merged into one",
    citation="Wang et al. 2022, AdaMix, arXiv:2205.12410",
    training=TRAINING,
)
