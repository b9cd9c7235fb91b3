"""Low-rank adapters that are trained: a pair of factors per linear module, whatever trained them.

With x the input of a linear module: ``delta(x) = up · (down · x)``, down (R,in), up (out,R), any
scale folded into up. LoRA, SoRA, AdaLoRA and VeRA all end as this, so they are loaded by one hook
per site, need no library to be used, and compose with each other where their modules agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.backbone.linear import LINEARS, add_delta, linear_sites, module_names
from mtl.errors import RequestError, ZooError
from mtl.methods.source import PlainSource


@dataclass(frozen=True)
class Factors:
    """The delta of one site: down (R,in), up (out,R), scale included. R may be 0."""

    down: Tensor
    up: Tensor

    def source(self) -> PlainSource:
        """As compositions see it: linear features ``down · x`` of R dimensions."""
        rank, width = self.down.shape[0], self.up.shape[0]
        return PlainSource(
            down=self.down,
            down_bias=self.down.new_zeros(rank),
            activation="linear",
            up_weight=self.up,
            up_bias=self.up.new_zeros(width),
        )


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


def placement(settings: Any, hidden_size: int) -> dict[str, Any]:
    """The signature of low-rank adapters: sources mix where their modules agree."""
    return {"modules": settings.modules}


def canonical(settings: Any, known: Sequence[str] = LINEARS) -> None:
    """Give ``settings.modules`` its one spelling (frozen settings, in ``__post_init__``).

    Raises:
        RequestError: see :func:`mtl.backbone.linear.module_names`.
    """
    object.__setattr__(settings, "modules", ",".join(module_names(settings.modules, known)))


def check_rank(rank: int, alpha: float = 1.0, dropout: float = 0.0) -> None:
    """Raises RequestError where one of the three is none."""
    if rank < 1:
        raise RequestError(f"rank={rank} must be at least 1.")
    if not alpha > 0:
        raise RequestError(f"alpha={alpha} must be above 0.")
    if not 0 <= dropout < 1:
        raise RequestError(f"dropout={dropout} must be at least 0 and below 1.")


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


Read = Callable[[Any, Any, Path], Mapping[str, Factors]]
"""(encoder, settings, folder) → the stored factors by site."""


def source_loader(read: Read) -> Callable[[Any, Any, str, Path | None], None]:
    """``Method.load_source`` of a low-rank method: its settings have ``modules`` and ``rank``."""

    def load_source(encoder: Any, settings: Any, name: str, folder: Path | None) -> None:
        factors = read(encoder, settings, folder) if folder else blank(encoder, settings)
        add_source(encoder, name, factors)

    return load_source


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
