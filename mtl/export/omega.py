"""Which sources of a composition count: the size of their scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mtl.compose.scalearn import ScaLearnSite

if TYPE_CHECKING:
    from mtl.export.load import Loaded

NEAR_ZERO = 0.01
"""A source whose omega is below this share of the largest cannot be told from 0."""


def is_soup(loaded: Loaded) -> bool:
    """Whether the sources were averaged to one before anything is scaled."""
    modules = loaded.network.encoder.modules()
    return any(isinstance(m, ScaLearnSite) and m.combine is not None for m in modules)


@torch.no_grad()
def omega_sizes(loaded: Loaded) -> list[float] | None:
    """Root mean square of omega per source, over sites and dimensions; None where there is none.

    Of omega as it enters the sum: normalised where the composition normalises. Of a soup the
    weights by which the sources' weights were averaged.
    """
    if loaded.composed is None:
        return None
    if is_soup(loaded):
        return loaded.composed.tensors()["soup.weights"].double().tolist()
    sites = [s for s in loaded.network.encoder.modules() if isinstance(s, ScaLearnSite)]
    if not sites:
        return None
    squares = torch.stack([site.effective().double().square().mean(1) for site in sites])
    return squares.mean(0).sqrt().tolist()


def near_zero(sizes: list[float], share: float = NEAR_ZERO) -> list[int]:
    """Numbers of the sources whose omega is at most ``share`` of the largest one's."""
    largest = max(sizes)
    return [k for k, size in enumerate(sizes) if size <= share * largest and size < largest]
