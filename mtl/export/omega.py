"""Which sources of a composition count: the size of their scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl.compose.modules.scalearn import ScaLearnSite
from mtl.zoo.composition import used_weights

if TYPE_CHECKING:
    from mtl.runs import Loaded
    from mtl.zoo import Entry

NEAR_ZERO = 0.01
"""A source whose omega is below this share of the largest cannot be told from 0."""


def is_soup(loaded: Loaded) -> bool:
    """Whether the sources were averaged to one before anything is scaled."""
    modules = loaded.network.encoder.modules()
    return any(isinstance(m, ScaLearnSite) and m.combine is not None for m in modules)


def omega_sizes(entry: Entry) -> list[float] | None:
    """Root mean square of omega per source, over sites and dimensions; None where there is none.

    Of omega as it enters the sum: normalised where the composition normalises. Of a soup the
    weights by which the sources' weights were averaged.
    """
    if entry.manifest.kind != "composition":
        return None
    used = used_weights(entry)
    if used is None:
        return None
    squares = np.stack([np.square(value).mean(1) for value in used.values()])
    return [float(size) for size in np.sqrt(squares.mean(0))]


def near_zero(sizes: list[float], share: float = NEAR_ZERO) -> list[int]:
    """Numbers of the sources whose omega is at most ``share`` of the largest one's."""
    largest = max(sizes)
    return [k for k, size in enumerate(sizes) if size <= share * largest and size < largest]
