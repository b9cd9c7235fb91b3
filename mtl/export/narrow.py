"""Fewer bottleneck units: which ones to keep, and what the others leave behind.

At a site with features f = act(D z + c) ∈ R^S and output U f + b, over the real tokens of some
unlabelled text, m = E f and C = Cov f are measured. For a set J of W units that stay:

========  =====================================================================================
drop      the units of largest effect ``C_ss ‖U_s‖²`` stay as they are; the others are replaced
          by their means: ``b' = b + Σ_{s∉J} m_s U_s``
refit     units are taken one after the other, each the one that lowers the error most (orthogonal
          matching pursuit on C), and U' and b' are the least-squares fit to the site's output:
          ``U' = U C_:J C_JJ⁻¹``, ``b' = b + U m − U' m_J``
========  =====================================================================================

The order of units does not depend on W, so a whole curve over widths costs one pass over the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtl.backbone.injection import bottleneck_layers
from mtl.export.folding import Folded, Maps, Site

if TYPE_CHECKING:
    from mtl.backbone import Network

HOW = ("refit", "drop")
_RELATIVE = 1e-10
"""A unit whose remaining variance is below this share of the largest says nothing new."""


@dataclass(frozen=True)
class Moments:
    """Of the features at one site over n tokens, in fp64: mean (S,) and covariance (S,S)."""

    mean: Tensor
    covariance: Tensor
    tokens: int


@torch.no_grad()
def feature_moments(
    network: Network, name: str, batches: Iterable[Mapping[str, Any]]
) -> dict[Site, Moments]:
    """Moments of the features of the adapter ``name`` in ``network`` at every site.

    One pass; padding does not count.
    """
    sums: dict[Site, Tensor] = {}
    mask: list[Tensor] = []
    handles = []

    def hook(key: Site) -> Any:
        def add(module: Any, args: Any, features: Tensor) -> None:
            kept = features[mask[0]].double()
            both = torch.cat([kept, kept.new_ones(len(kept), 1)], 1)
            product = both.t() @ both
            sums[key] = sums[key] + product if key in sums else product

        return add

    encoder: Any = network.encoder
    for index, location, layer in bottleneck_layers(encoder):
        if name in layer.adapters:
            down = layer.adapters[name].adapter_down
            handles.append(down.register_forward_hook(hook((index, location))))
    try:
        for batch in batches:
            mask[:] = [batch["attention_mask"].bool()]
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {key: _moments(total.cpu()) for key, total in sums.items()}


def _moments(total: Tensor) -> Moments:
    count = float(total[-1, -1])
    mean = total[:-1, -1] / count
    return Moments(mean, total[:-1, :-1] / count - torch.outer(mean, mean), int(count))


def unit_order(maps: Maps, moments: Moments, how: str) -> Tensor:
    """The units of a site by what they give, best first; those that give nothing are left out."""
    covariance, up = moments.covariance.clone(), maps.up.clone()
    variance = covariance.diagonal()
    floor = _RELATIVE * float(variance.max())
    if how == "drop":
        effect = variance * up.square().sum(0)
        order = effect.argsort(descending=True)
        return order[effect[order] > 0]
    output = up @ covariance  # (D,S): covariance of the site's output with every unit
    chosen: list[int] = []
    for _ in range(maps.width):
        left = covariance.diagonal()
        gain = torch.where(left > floor, output.square().sum(0) / left.clamp_min(floor), 0.0)
        gain[chosen] = 0.0
        best = int(gain.argmax())
        if not float(gain[best]) > 0:
            break
        chosen.append(best)
        row, column, scale = covariance[best].clone(), output[:, best].clone(), left[best].clone()
        covariance -= torch.outer(row, row) / scale
        output -= torch.outer(column, row) / scale
    return torch.tensor(chosen, dtype=torch.long)


def narrow_site(maps: Maps, moments: Moments, order: Tensor, width: int, how: str) -> Maps:
    """The site with the first ``width`` units of ``order``."""
    units = order[:width]
    kept = maps.take(units)
    mean = moments.mean
    if how == "drop":
        up = kept.up
    else:
        block = moments.covariance[units][:, units]
        shared = moments.covariance[:, units]
        up = torch.linalg.lstsq(block, (maps.up @ shared).t(), driver="gelsd").solution.t()
    bias = maps.up_bias + maps.up @ mean - up @ mean[units]
    return replace(kept, up=up, up_bias=bias)


def narrow(
    folded: Folded,
    moments: Mapping[Site, Moments],
    orders: Mapping[Site, Tensor],
    width: int,
    how: str,
) -> Folded:
    """The folded adapter with ``width`` units at every site."""
    sites = {
        key: narrow_site(maps, moments[key], orders[key], width, how)
        for key, maps in folded.sites.items()
    }
    return replace(folded, sites=sites).evened()


def widths(full: int, least: int) -> list[int]:
    """Widths to try, two per halving: ``full`` first, ``least`` last."""
    found, width = [full], float(full)
    while round(width := width / 2**0.5) > least:
        found.append(round(width))
    return [*found, least] if least < full else found
