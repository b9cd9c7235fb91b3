"""A composition: the mean of the sources times one learned number per site. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from mtl.compose.composition import Composition
from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.lazy import later


@dataclass(frozen=True)
class GainSettings:
    """``g / K · Σ_k u_k`` per site, g learned.

    Attributes:
        start: g before training.
    """

    start: float = 1.0

    def __post_init__(self) -> None:
        if self.start == 0:
            raise RequestError("start=0 would begin without any source.")


GAIN = Composition(
    name="gain",
    settings=GainSettings,
    defaults={},
    attach=later("mtl_example.modules:attach"),
    shares=later("mtl_example.modules:shares"),
    summary="the mean of the sources, times a learned number per site",
    citation="none; an example",
    training=Training("an example", {"lr": 1e-2, "epochs": 10}),
    kinds=("bottleneck",),
    refusal="an example keeps to one sort of source",
)
