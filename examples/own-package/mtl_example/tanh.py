"""A stage-one method: a bottleneck with tanh. No torch here: naming a run must not cost it."""

from __future__ import annotations

from dataclasses import dataclass

from mtl.engine.settings import Training
from mtl.errors import RequestError, unknown
from mtl.lazy import later
from mtl.methods.core import core_method
from mtl.methods.placement import PLACEMENTS


@dataclass(frozen=True)
class TanhSettings:
    """``U·tanh(D z + c) + b`` per site; L·(2·D·R + R + D) parameters.

    Attributes:
        bottleneck: R.
        placement: the sites, as of ``pfeiffer``.
    """

    bottleneck: int = 8
    placement: str = "pfeiffer"

    def __post_init__(self) -> None:
        if self.bottleneck < 1:
            raise RequestError(f"bottleneck={self.bottleneck} must be at least 1.")
        if self.placement not in PLACEMENTS:
            raise unknown("placement", self.placement, PLACEMENTS)


METHOD = core_method(
    "tanh",
    TanhSettings,
    core="mtl_example.tanh",
    size=lambda settings, hidden_size: settings.bottleneck,
    build=later("mtl_example.modules:build"),
    summary="bottleneck with tanh",
    citation="none; an example",
    training=Training("an example", {"lr": 1e-3, "epochs": 10}),
)
