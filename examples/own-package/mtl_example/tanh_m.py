"""A joint method: one adapter of ``tanh`` for all tasks. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from mtl.joint.sampler import Sampling
from mtl.joint.single import shared_method
from mtl_example.tanh import TanhSettings


@dataclass(frozen=True)
class TanhMSettings(Sampling, TanhSettings):
    """As of ``tanh``, and how batches of the tasks are drawn."""

    def __post_init__(self) -> None:
        Sampling.__post_init__(self)
        TanhSettings.__post_init__(self)


METHOD = shared_method(
    "tanh-m",
    "tanh",
    TanhMSettings,
    1e-3,
    "one bottleneck with tanh shared by all tasks",
    "none; an example",
)
