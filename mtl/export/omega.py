"""Which sources of a composition count: the size of their scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mtl.compose.scalearn import ScaLearnSite

if TYPE_CHECKING:
    from mtl.export.load import Loaded

NEAR_ZERO = 0.01
"""A source whose omega is below this share of the largest cannot be told from 0."""


@torch.no_grad()
def omega_sizes(loaded: Loaded) -> list[float] | None:
    """Root mean square of omega per source, over sites and dimensions; None where there is none.

    Of omega as it enters the sum: normalised where the composition normalises.
    """
    if loaded.composed is None:
        return None
    sites = [s for s in loaded.network.encoder.modules() if isinstance(s, ScaLearnSite)]
    if not sites or sites[0].combine is not None:
        return None
    squares = torch.stack([site.effective().double().square().mean(1) for site in sites])
    return squares.mean(0).sqrt().tolist()


def near_zero(sizes: list[float], share: float = NEAR_ZERO) -> list[int]:
    """Numbers of the sources whose omega is at most ``share`` of the largest one's."""
    largest = max(sizes)
    return [k for k, size in enumerate(sizes) if size <= share * largest and size < largest]
