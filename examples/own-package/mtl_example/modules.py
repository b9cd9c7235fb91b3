"""What computes: imported when something is attached to an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from adapters import AdapterConfig
from torch import Tensor, nn

from mtl.backbone.injection import FusionSite
from mtl.compose import Bank, Composed
from mtl.compose.sites import add_sites, load_stored, register
from mtl.zoo.composition import SourceWeights, weigh

KIND = "gain"
"""First part of the names in the entry's files."""


def build(config: Any, hidden_size: int, size: int) -> tuple[nn.Module, nn.Module]:
    """The two maps of one site: (B,T,D) → (B,T,R), activation included, and back."""
    down = nn.Sequential(nn.Linear(hidden_size, size), nn.Tanh())
    up = nn.Linear(size, hidden_size)
    nn.init.zeros_(up.weight)
    return down, up


@dataclass(eq=False)
class GainFusion(AdapterConfig):
    """The config under which ``adapters`` knows the block."""

    architecture: str = "mtl_example_gain"


class GainSite(FusionSite):
    """``g / K · Σ_k u_k`` at one site."""

    def __init__(self, bank: Bank) -> None:
        super().__init__()
        self.bank = bank
        self.gain = nn.Parameter(torch.ones(1))

    def omega(self) -> Tensor:
        """(K,1): what each source is multiplied by."""
        return (self.gain / self.bank.count).expand(self.bank.count, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.bank.mix(z, *self.bank.fold(self.omega()))


register(GainFusion, GainSite)


def attach(encoder: Any, sources: Sequence[str], settings: Any) -> Composed:
    """Compose the adapters named ``sources`` in ``encoder``; active."""
    sites: dict[str, GainSite] = add_sites(encoder, sources, GainFusion())
    named = {f"{KIND}.{key}": site.gain for key, site in sites.items()}
    with torch.no_grad():
        for gain in named.values():
            gain.requires_grad_(True).fill_(settings.start)

    def used() -> Mapping[str, Tensor]:
        return {key: site.omega().detach() for key, site in sites.items()}

    return Composed(
        parameters=named,
        tensors=lambda: {name: value.detach().clone() for name, value in named.items()},
        load=lambda stored: load_stored(KIND, named, stored),
        seen=used,
    )


def shares(composed: Composed, settings: Any) -> SourceWeights:
    """The same for every source and input; the reports draw it."""
    return weigh(KIND, {key: omega.cpu().numpy() for key, omega in composed.seen().items()})
