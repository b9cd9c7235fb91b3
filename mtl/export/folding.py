"""A composition of plain bottlenecks as one: ``Σ_k ω_k ⊙ (U_k act(D_k z + c_k) + b_k)``.

With S = Σ R_k that is ``U·act(D·z + c) + b`` with::

    D = [D_1; …; D_K]                    (S,D)      c = [c_1; …; c_K]        (S,)
    U = [diag(ω_1)U_1 … diag(ω_K)U_K]    (D,S)      b = Σ_k ω_k ⊙ b_k        (D,)

before any residual, so the block adds the same residual around the sum.
What is learned or fixed in front of U (an adapter's scaling) is in U_k and b_k already. Folded in
fp64 and rounded once, when it is written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtl.backbone.injection import bottleneck_layers
from mtl.compose.modules.scalearn import ScaLearnSite
from mtl.compose.sites import NAME
from mtl.errors import RequestError
from mtl.methods import PlainSource, as_source
from mtl.methods.placement import signature
from mtl.methods.source import plain_source

if TYPE_CHECKING:
    from mtl.runs import Loaded

Site = tuple[int, str]
"""(layer, location key of ``adapters``)."""


@dataclass(frozen=True)
class Maps:
    """One site of a plain adapter: ``up·act(down·z + down_bias) + up_bias``.

    Shapes: down (S,D), down_bias (S,), up (D,S), up_bias (D,); owner (S,), the source of each unit.
    """

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor
    owner: Tensor

    @property
    def width(self) -> int:
        """S."""
        return self.down.shape[0]

    def take(self, units: Tensor) -> Maps:
        """Only these units."""
        return replace(
            self,
            down=self.down[units],
            down_bias=self.down_bias[units],
            up=self.up[:, units],
            owner=self.owner[units],
        )

    def padded(self, width: int) -> Maps:
        """The same function with ``width`` units: the further ones are zeros."""
        more = width - self.width
        if more <= 0:
            return self
        zeros = self.down.new_zeros
        return Maps(
            torch.cat([self.down, zeros(more, self.down.shape[1])]),
            torch.cat([self.down_bias, zeros(more)]),
            torch.cat([self.up, zeros(self.up.shape[0], more)], 1),
            self.up_bias,
            torch.cat([self.owner, self.owner.new_full((more,), -1)]),
        )


@dataclass(frozen=True)
class Folded:
    """A plain adapter for a whole encoder, in fp64.

    Attributes:
        sites: maps per site, all of one width.
        activation: act, by its name in ``adapters``.
        placement: the signature of its sites (:mod:`mtl.methods.placement`).
    """

    sites: Mapping[Site, Maps]
    activation: str
    placement: Mapping[str, Any]

    @property
    def width(self) -> int:
        """S, the bottleneck of the exported adapter."""
        return max(maps.width for maps in self.sites.values())

    def evened(self) -> Folded:
        """All sites padded to one width, which is what a config of ``adapters`` can say."""
        width = self.width
        return replace(self, sites={key: m.padded(width) for key, m in self.sites.items()})


class UnfoldableError(RequestError):
    """There is no fixed sum of plain sources. ``reason`` says why, as a clause about the entry."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def plain_view(source: Any, what: str) -> PlainSource:
    """The source as ``act(D z + c)`` and a linear map.

    Raises:
        UnfoldableError: its features are no activation of one linear map (AdaKron, routed experts).
    """
    found = plain_source(source)
    if found is None:
        raise UnfoldableError(
            f"Cannot fold {what}: its features are not act(D·z + c), so no stock bottleneck "
            "computes them. --distill trains one that comes close, and says how close.",
            f"the features of {what} are no activation of one linear map",
        )
    return found


@torch.no_grad()
def fold(loaded: Loaded, drop: Collection[int] = ()) -> Folded:
    """The loaded composition, or single adapter, as one plain adapter.

    Args:
        drop: numbers of sources to leave out; the scales of the others stay as they are.

    Raises:
        RequestError: it does not fold: attention over the sources, several activations, features
            that are no activation of a linear map, weights of the base changed. Says the nearest
            alternative.
    """
    found: dict[Site, Maps] = {}
    activations: dict[str, list[str]] = {}
    for where, views, omega in plain_sites(loaded):
        kept = [k for k in range(len(views)) if k not in drop]
        if not kept:
            raise RequestError(f"Nothing is left of {loaded.entry.ref} without its sources.")
        for k in kept:
            tasks = activations.setdefault(views[k].activation, [])
            if (task := loaded.sources[k].manifest.task["id"]) not in tasks:
                tasks.append(task)
        found[where] = fold_site([views[k] for k in kept], omega[kept], kept)
    if not found:
        raise RequestError(
            f"Cannot fold {loaded.entry.ref}: {loaded.entry.manifest.method} has no bottlenecks."
        )
    if len(activations) > 1:
        said = "; ".join(f"{act}: {', '.join(tasks)}" for act, tasks in activations.items())
        raise RequestError(
            f"Cannot fold {loaded.entry.ref}: a stock adapter has one activation, the sources have "
            f"several ({said}). Nearest: --distill, or compose sources of one activation."
        )
    return Folded(found, next(iter(activations)), placement_of(loaded)).evened()


def placement_of(loaded: Loaded) -> Mapping[str, Any]:
    """The signature of its bottlenecks (:mod:`mtl.methods.placement`)."""
    return signature(loaded.network.encoder.adapters_config.get(loaded.names[0]))


def plain_sites(loaded: Loaded) -> Iterator[tuple[Site, list[PlainSource], Tensor]]:
    """What is added up at every bottleneck site: K plain sources and omega (K,D) or (K,1), fp64.

    A single adapter is one source with an omega of 1; a soup is one, too.

    Raises:
        UnfoldableError: attention over the sources, features that are no activation of a linear
            map.
        RequestError: weights of the base changed.
    """
    check_base_unchanged(loaded)
    if loaded.densify is not None:
        loaded.densify()
    for index, location, layer in bottleneck_layers(loaded.network.encoder):
        if loaded.names[0] in layer.adapters:
            yield (index, location), *_site(loaded, layer)


def check_base_unchanged(loaded: Loaded) -> None:
    """Refuse sources that change weights of the base itself. Raises RequestError."""
    for entry in loaded.sources:
        if entry.manifest.weights == "delta":
            raise RequestError(
                f"Cannot export {loaded.entry.ref}: {entry.manifest.method} changes weights of the "
                "base itself, which no stock adapter holds. Nearest: train with a method that "
                "leaves the base alone (for tensorized adapters --set train_layer_norm=false)."
            )


def _site(loaded: Loaded, layer: Any) -> tuple[list[PlainSource], Tensor]:
    """What is added up at a site: the sources in fp64, and their scales (K,D) or (K,1)."""
    views = []
    for name, entry in zip(loaded.names, loaded.sources, strict=True):
        source = as_source(layer.adapters[name], layer.adapters_config.get(name))
        views.append(_double(plain_view(source, f"{entry.ref} ({entry.manifest.method})")))
    if loaded.composed is None:
        return views, views[0].up_bias.new_ones(1, 1)
    site = layer.adapter_fusion_layer[NAME]
    if not isinstance(site, ScaLearnSite):
        raise UnfoldableError(
            f"Cannot fold {loaded.entry.ref}: {loaded.entry.manifest.method} weighs its sources "
            "anew for every token, so there is no fixed sum. Nearest: --distill trains one stock "
            "adapter that comes close, or compose again with --method scalearn, which folds "
            "exactly.",
            f"{loaded.entry.manifest.method} weighs its sources anew for every token",
        )
    if site.combine is not None:
        views = [site.combine(views)]
    return views, site.effective().double().cpu()


def fold_site(views: Sequence[PlainSource], omega: Tensor, numbers: Sequence[int]) -> Maps:
    """Fold K sources of one site, called by ``numbers``, with omega (K,D) or (K,1)."""
    scaled = list(zip(omega, views, strict=True))
    return Maps(
        down=torch.cat([view.down for view in views]),
        down_bias=torch.cat([view.down_bias for view in views]),
        up=torch.cat([scale.unsqueeze(1) * view.up_weight for scale, view in scaled], 1),
        up_bias=torch.stack([scale * view.up_bias for scale, view in scaled]).sum(0),
        owner=torch.cat(
            [
                torch.full((view.down.shape[0],), number)
                for number, view in zip(numbers, views, strict=True)
            ]
        ),
    )


def _double(view: PlainSource) -> PlainSource:
    return PlainSource(
        view.down.double().cpu(),
        view.down_bias.double().cpu(),
        view.activation,
        view.up_weight.double().cpu(),
        view.up_bias.double().cpu(),
    )
