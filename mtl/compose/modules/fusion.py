"""The torch side of :mod:`mtl.compose.fusion`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from adapters import AdapterConfig
from torch import Tensor, nn

from mtl.backbone.beside import Blocks, Draws, UnfitError
from mtl.backbone.beside_sites import BATCHED, Answer, Stacked, alike, chosen
from mtl.backbone.injection import FusionSite
from mtl.compose.bank import Bank
from mtl.compose.composition import Composed
from mtl.compose.fusion import FUSION, REGULARISERS, FusionSettings
from mtl.compose.low_rank import are_low_rank
from mtl.compose.sites import add_sites, load_stored, register
from mtl.errors import RequestError
from mtl.zoo.composition import ATTENTION, SourceWeights, is_weight, weigh
from mtl.zoo.composition import FUSION as STORED


@dataclass(eq=False)
class FusionFusion(AdapterConfig):
    """The config under which ``adapters`` knows our AdapterFusion; see ``ScaLearnFusion``."""

    architecture: str = "mtl_fusion"


class FusionSiteModule(FusionSite):
    """AdapterFusion at one site: (B,T,D) → (B,T,D), the mixture before the residual.

    Attributes:
        query, key: linear, (D,D) with bias, N(0, 0.02); value: (D,D) without bias, the identity
            with 1e-6 off the diagonal.
    """

    segment: Tensor

    def __init__(self, bank: Bank) -> None:
        super().__init__()
        self.bank = bank
        size, device = bank.up.shape[1], bank.up.device
        self.query = nn.Linear(size, size, device=device)
        self.key = nn.Linear(size, size, device=device)
        self.value = nn.Linear(size, size, bias=False, device=device)
        for linear in (self.query, self.key):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.value.weight.fill_(1e-6).fill_diagonal_(1.0)
        self.dropout = 0.0
        # (S,K): 1 where a unit belongs to a source; sums units per source in one product
        segment = functional.one_hot(bank.owner, bank.count).to(bank.up.dtype)
        self.register_buffer("segment", segment, persistent=False)
        self._held: tuple[Tensor, ...] | None = None
        self._seen: Tensor | None = None
        self._mask: list[Tensor | None] = [None]

    def maps(self) -> tuple[Tensor, ...]:
        """kmap (S,D), W_K b + b_K (K,D), vmap (S,D), b W_V^T (K,D)."""
        bank = self.bank
        return (
            functional.linear(bank.up, self.key.weight),
            functional.linear(bank.bias, self.key.weight, self.key.bias),
            functional.linear(bank.up, self.value.weight),
            functional.linear(bank.bias, self.value.weight),
        )

    def forward(self, z: Tensor) -> Tensor:
        kmap, kbias, vmap, vbias = self._held or self.maps()
        features = self.bank.features(z)
        query = self.query(z)
        units = functional.linear(query, kmap) * features
        score = functional.linear(units, self.segment.t()) + functional.linear(query, kbias)
        score = functional.dropout(score, self.dropout, self.training)
        weight = score.softmax(-1)
        if self._seen is not None:
            self._count(weight.detach())
        spread = functional.linear(weight, self.segment)
        return functional.linear(spread * features, vmap.t()) + functional.linear(weight, vbias.t())

    def regulariser(self) -> Tensor:
        """||I − W_V||_F²."""
        value = self.value.weight
        # without building I: Σ w² − 2 Σ diag + D
        return value.square().sum() - 2 * value.diagonal().sum() + value.shape[0]

    def hold(self, mask: list[Tensor | None]) -> None:
        """Compute the maps once and add up attention until :meth:`release`."""
        with torch.no_grad():
            self._held = self.maps()
        # K sums and a count
        self._seen = torch.zeros(self.bank.count + 1, device=self.bank.up.device)
        self._mask = mask

    def release(self) -> None:
        """Compute the maps in every forward again."""
        self._held = None

    def attention(self) -> Tensor | None:
        """(K,) mean attention over the real tokens of the last evaluation, None before one."""
        if self._seen is None or not float(self._seen[-1]):
            return None
        return self._seen[:-1] / self._seen[-1]

    def _count(self, weight: Tensor) -> None:
        assert self._seen is not None
        if self._held is None:
            return
        mask = self._mask[0]
        kept = torch.ones_like(weight[..., 0]) if mask is None else mask.to(weight.dtype)
        sums = (weight.float() * kept.unsqueeze(-1)).sum((0, 1))
        self._seen += torch.cat([sums, kept.float().sum().reshape(1)])


register(FusionFusion, FusionSiteModule)


def _beside(sites: Sequence[FusionSiteModule], stacked: Stacked) -> Answer:
    """The sites of several runs as one: what each trains in batched products, the rest for all."""
    leader, banks = sites[0], [site.bank for site in sites]
    if len({(bank.up.shape, tuple(bank.sizes)) for bank in banks}) > 1:
        raise UnfitError("sources of other widths")
    if not all(torch.equal(site.segment, leader.segment) for site in sites):
        raise UnfitError("units of other sources")
    shared = alike(banks)
    trained = {
        name: stacked[id(parameter)]
        for name, parameter in leader.named_parameters()
        if parameter.requires_grad
    }
    frozen = {
        name: torch.stack([getattr(bank, name) for bank in banks])
        for name in ("up", "bias")
        if not shared
    }

    def answer(x: Tensor, blocks: Blocks, draws: Draws) -> Tensor:
        own = chosen({**trained, **frozen}, blocks)
        up, bias = (own.get(name, getattr(banks[0], name)) for name in ("up", "bias"))
        if shared:
            features = banks[0].features(x)
        else:
            parts = zip(blocks.runs, x.split(blocks.rows), strict=True)
            features = torch.cat([banks[run].features(part) for run, part in parts])
        wq, wk, wv = (own[f"{name}.weight"].transpose(1, 2) for name in ("query", "key", "value"))
        shape = (len(blocks.rows), -1, x.shape[1])  # (N,n,T)
        laid = blocks.spread(x).flatten(1, 2)
        query = torch.baddbmm(own["query.bias"].unsqueeze(1), laid, wq)
        units = query @ (up @ wk).transpose(1, 2) * blocks.spread(features).flatten(1, 2)
        kbias = bias @ wk + own["key.bias"].unsqueeze(1)
        score = units @ leader.segment + query @ kbias.transpose(1, 2)
        score = blocks.gather(score.view(*shape, leader.bank.count))
        if leader.dropout and leader.training:
            score = draws.dropped(score, leader.dropout)
        weight = score.softmax(-1)
        used = blocks.spread(functional.linear(weight, leader.segment) * features).flatten(1, 2)
        mixed = used @ (up @ wv) + blocks.spread(weight).flatten(1, 2) @ (bias @ wv)
        return blocks.gather(mixed.view(*shape, mixed.shape[-1]))

    return answer


BATCHED[FusionSiteModule] = _beside


def attach(encoder: Any, sources: Sequence[str], settings: FusionSettings) -> Composed:
    """Put an AdapterFusion of the adapters named ``sources`` into ``encoder``; active.

    Raises:
        RequestError: low-rank sources.
    """
    if are_low_rank(encoder, sources):
        raise RequestError(f"Composition 'fusion' cannot use low-rank sources: {FUSION.refusal}.")
    sites: dict[str, FusionSiteModule] = add_sites(encoder, sources, FusionFusion())
    mask: list[Tensor | None] = [None]
    encoder.register_forward_pre_hook(_remember(mask), with_kwargs=True)
    named: dict[str, nn.Parameter] = {}
    for key, site in sites.items():
        site.dropout = settings.dropout
        for name, parameter in site.named_parameters():
            if name.startswith("bank."):
                continue  # a source that is a module: frozen
            parameter.requires_grad_(True)
            named[f"{STORED}.{key}.{name}"] = parameter
    weight = REGULARISERS[settings.fusion_reg]

    def penalty() -> Mapping[str, Tensor]:
        return {"fusion_reg": weight * torch.stack([s.regulariser() for s in sites.values()]).sum()}

    @contextmanager
    def evaluating() -> Iterator[None]:
        for site in sites.values():
            site.hold(mask)
        try:
            yield
        finally:
            for site in sites.values():
                site.release()
            mask[0] = None

    def seen() -> dict[str, Tensor]:
        found = {key: site.attention() for key, site in sites.items()}
        return {key: attention for key, attention in found.items() if attention is not None}

    return Composed(
        parameters=named,
        tensors=lambda: {name: value.detach().clone() for name, value in named.items()},
        load=lambda stored: _load(named, stored),
        penalties=(penalty,) if weight else (),
        evaluating=evaluating,
        seen=seen,
    )


def shares(composed: Composed, settings: FusionSettings) -> SourceWeights:
    """The attention, a mean over the real tokens of the dev split."""
    seen = {key: attention.double().cpu().numpy() for key, attention in composed.seen().items()}
    return weigh(ATTENTION, seen, "dev")


def _remember(mask: list[Tensor | None]) -> Any:
    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        # padding attends, too; it must not enter the attention map
        mask[0] = kwargs.get("attention_mask")

    return hook


def _load(named: Mapping[str, nn.Parameter], stored: Mapping[str, Tensor]) -> None:
    # entries of before kept their attention beside the weights
    weights = {key: value for key, value in stored.items() if is_weight(key)}
    load_stored(STORED, named, weights)
