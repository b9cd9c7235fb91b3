"""The torch side of :mod:`mtl.compose.soup`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from adapters import AdapterConfig
from torch import Tensor, nn

from mtl.backbone.cores import FUSION_MODULES
from mtl.compose.bank import Bank
from mtl.compose.composition import Composed
from mtl.compose.modules.scalearn import ScaLearnSite
from mtl.compose.scalearn import ScaLearnSettings
from mtl.compose.sites import add_sites, load_stored
from mtl.compose.soup import SoupSettings
from mtl.errors import RequestError, ZooError
from mtl.methods.source import PlainSource, as_source, plain_source
from mtl.words import counted
from mtl.zoo.composition import SOUP as WEIGHTS
from mtl.zoo.composition import SOUP_WEIGHTS, SourceWeights, weigh


@dataclass(eq=False)
class SoupFusion(AdapterConfig):
    """The config under which ``adapters`` knows a soup; see ``ScaLearnFusion``."""

    architecture: str = "mtl_soup"
    weights: tuple[float, ...] = ()


def stir(views: Sequence[PlainSource], weights: Sequence[float]) -> PlainSource:
    """The weighted average of plain sources: one of them.

    Raises:
        RequestError: bottlenecks of several widths, or several activations.
    """
    used = [(view, weight) for view, weight in zip(views, weights, strict=True) if weight]
    shapes = {view.down.shape for view, _ in used}
    activations = {view.activation for view, _ in used}
    if len(shapes) > 1 or len(activations) > 1:
        sizes = ", ".join(str(shape[0]) for shape in sorted(shapes))
        raise RequestError(
            f"Cannot average the weights of sources of unlike form: bottlenecks {sizes}, "
            f"activations {', '.join(sorted(activations))}. Use sources of one width and one "
            "activation, or --method average, which averages their outputs."
        )

    def mean(field: str) -> Tensor:
        return torch.stack([weight * getattr(view, field) for view, weight in used]).sum(0)

    return PlainSource(
        mean("down"),
        mean("down_bias"),
        used[0][0].activation,
        mean("up_weight"),
        mean("up_bias"),
    )


def _build(layer: Any, sources: list[str], config: SoupFusion) -> ScaLearnSite:
    def combine(views: Sequence[PlainSource]) -> PlainSource:
        return stir(views, config.weights)

    plain = []
    for name in sources:
        found = plain_source(as_source(layer.adapters[name], layer.adapters_config.get(name)))
        if found is None:
            raise RequestError(
                "Cannot average the weights of sources that are no plain bottlenecks (AdaKron): "
                "use --method average, which averages their outputs."
            )
        plain.append(found)
    site = ScaLearnSite(Bank([combine(plain)]))
    site.combine = combine
    # A parameter of the site, so that it moves with it; it never trains.
    site.whole = nn.Parameter(site.bank.up.new_ones(1, 1), requires_grad=False)
    site.bind(site.whole, ScaLearnSettings(per="source", dropout=0.0))
    return site


FUSION_MODULES[SoupFusion] = _build


def attach(encoder: Any, sources: Sequence[str], settings: SoupSettings) -> Composed:
    """Put the soup of the adapters named ``sources`` into ``encoder``; active, nothing trains.

    Without weights (counting), every source weighs the same.

    Raises:
        RequestError: not one weight per source; see :func:`stir`.
    """
    equal = [1 / len(sources)] * len(sources)
    weights = settings.numbers() if settings.weights else equal
    if len(weights) != len(sources):
        raise RequestError(
            f"weights={settings.weights!r} are {len(weights)} for "
            f"{counted(len(sources), 'source')}."
        )
    add_sites(encoder, sources, SoupFusion(weights=tuple(weights)))
    stored = torch.tensor(weights)

    def load(tensors: Any) -> None:
        load_stored("soup", {SOUP_WEIGHTS: torch.nn.Parameter(torch.empty_like(stored))}, tensors)
        if not torch.allclose(tensors[SOUP_WEIGHTS], stored):
            raise ZooError("The stored weights of the soup are not those of its settings.")

    return Composed(parameters={}, tensors=lambda: {SOUP_WEIGHTS: stored.clone()}, load=load)


def shares(composed: Composed, settings: SoupSettings) -> SourceWeights:
    """The weights of the average, the same at every site and for every input."""
    return weigh(WEIGHTS, {"shared": composed.tensors()[SOUP_WEIGHTS].numpy()})
