"""The torch side of :mod:`mtl.methods.low_rank`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.backbone.linear import add_delta, linear_sites, module_names
from mtl.errors import ZooError
from mtl.methods.low_rank import Factors


class LowRankDelta(nn.Module):
    """``up · (down · x)`` with fixed factors: (B,T,in) → (B,T,out)."""

    down: Tensor
    up: Tensor

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        self.register_buffer("down", factors.down, persistent=False)
        self.register_buffer("up", factors.up, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(functional.linear(x, self.down), self.up)


def install(encoder: Any, name: str, factors: Mapping[str, Factors]) -> None:
    """Add the deltas ``factors`` by site to ``encoder`` under ``name``, active."""
    modules = list(dict.fromkeys(site.partition(".")[2] for site in factors))
    linears = linear_sites(encoder, modules)
    deltas = nn.ModuleDict()
    for site, found in factors.items():
        if found.down.shape[0]:
            delta = LowRankDelta(found)
            deltas[site.replace(".", "_")] = delta
            add_delta(linears[site], delta)
    # One registration on the encoder, so that `.to(device)` moves them with the rest.
    encoder.register_module(f"low_rank_{name}", deltas)


def add_source(encoder: Any, name: str, factors: Mapping[str, Factors]) -> None:
    """Make the deltas known as the source ``name`` of stage two; they change nothing yet."""
    if not hasattr(encoder, "low_rank_sources"):
        encoder.low_rank_sources = {}
    encoder.low_rank_sources[name] = dict(factors)


def low_rank_sources(encoder: Any) -> dict[str, dict[str, Factors]]:
    """The low-rank sources in ``encoder``: name → site → factors."""
    return getattr(encoder, "low_rank_sources", {})


def blank(encoder: Any, settings: Any) -> dict[str, Factors]:
    """Zero factors of the shapes that ``settings`` give (for counting)."""
    return {
        site: Factors(
            torch.zeros(settings.rank, linear.in_features),
            torch.zeros(linear.out_features, settings.rank),
        )
        for site, linear in linear_sites(encoder, module_names(settings.modules)).items()
    }


def check_shapes(
    encoder: Any, modules: str, folder: Path, stored: Mapping[str, Factors]
) -> dict[str, Factors]:
    """``stored`` in the order of the encoder's sites.

    Raises:
        ZooError: sites or shapes are not those of the encoder.
    """
    linears = linear_sites(encoder, module_names(modules))
    wrong = sorted({*linears} ^ {*stored})
    if wrong:
        raise ZooError(
            f"Cannot load the adapter in {folder}: {len(wrong)} sites are missing or too many, "
            f"the first {', '.join(wrong[:3])}."
        )
    for site, linear in linears.items():
        down, up = stored[site].down, stored[site].up
        expected = (linear.in_features, linear.out_features)
        if (
            (down.ndim, up.ndim) != (2, 2)
            or (down.shape[1], up.shape[0]) != expected
            or down.shape[0] != up.shape[1]
        ):
            raise ZooError(
                f"Cannot load the adapter in {folder}: the factors of {site} have shapes "
                f"{tuple(down.shape)} and {tuple(up.shape)}; expected (R, {expected[0]}) and "
                f"({expected[1]}, R)."
            )
    return {site: stored[site] for site in linears}
