"""The torch side of :mod:`mtl.methods.adamix`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.methods.modules.experts import GeluDown, Mixture

if TYPE_CHECKING:
    from mtl.backbone.injection import CoreConfig
    from mtl.methods.source import PlainSource


class MixtureDown(nn.Module):
    """``GELU(mixture(z))``: (B,T,D) → (B,T,R)."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, z: Tensor) -> Tensor:
        return functional.gelu(self.mixture(z))

    def merge(self) -> GeluDown:
        """The same with the averaged expert."""
        return GeluDown(self.mixture.linear())

    def source(self, weight: Tensor, bias: Tensor) -> PlainSource:
        """The frozen view for stage two: averaged, whatever the level."""
        return self.merge().source(weight, bias)


def build(config: CoreConfig, hidden_size: int, size: int) -> tuple[nn.Module, nn.Module]:
    experts = config.options["experts"]
    down = Mixture(1 if config.options["share_down"] else experts, hidden_size, size)
    up = Mixture(1 if config.options["share_up"] else experts, size, hidden_size)
    return MixtureDown(down), up
