"""The torch side of :mod:`mtl.methods.madakron`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mtl.methods.adakron import FACTOR
from mtl.methods.modules.adakron import (
    KronDown,
    KronSource,
    bert_linear,
    filled_linear,
    kron_features,
)
from mtl.methods.modules.experts import Mixture

if TYPE_CHECKING:
    from mtl.backbone.injection import CoreConfig


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


def build(config: CoreConfig, hidden_size: int, size: int) -> tuple[nn.Module, nn.Module]:
    experts = config.options["experts"]
    inner = experts if config.options["full"] else 1
    down = MixtureKron(
        Mixture(experts, hidden_size, FACTOR), Mixture(inner, hidden_size, size // FACTOR)
    )
    return down, bert_linear(size, hidden_size)
