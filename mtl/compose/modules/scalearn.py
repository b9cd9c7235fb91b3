"""The torch side of :mod:`mtl.compose.scalearn`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as functional
from adapters import AdapterConfig
from torch import Tensor, nn

from mtl.backbone.beside import Blocks, Draws, Member, UnfitError
from mtl.backbone.beside_sites import BATCHED, Answer, Stacked, alike, chosen
from mtl.backbone.draws import PerStep
from mtl.backbone.injection import FusionSite
from mtl.compose.bank import Bank
from mtl.compose.composition import Composed
from mtl.compose.groups import RATE, names_of
from mtl.compose.low_rank import add_linear_sites, are_low_rank
from mtl.compose.modules.groups import RowGates
from mtl.compose.scalearn import ScaLearnSettings
from mtl.compose.sites import add_sites, load_stored, register
from mtl.errors import RequestError
from mtl.methods.source import PlainSource
from mtl.zoo.composition import GATES, OMEGA, SourceWeights, is_of, normalised, weigh


class Gate(Protocol):
    """What a site's parameters are turned into before they are omega (:mod:`mtl.compose.gated`)."""

    def __call__(self, omega: Tensor, /, *, training: bool) -> Tensor: ...


@dataclass(eq=False)
class ScaLearnFusion(AdapterConfig):
    """The config under which ``adapters`` knows a ScaLearn block; our settings live elsewhere.

    It has none of AdapterFusion's fields, so that stock code that meets it fails instead of
    building an untrained attention.
    """

    architecture: str = "mtl_scalearn"


class ScaLearnSite(FusionSite):
    """ScaLearn at one site: ``Σ_k omega_k ⊙ u_k``, by two products (see :mod:`mtl.compose.bank`).

    omega is bound by :meth:`bind`, because the ++ forms share one tensor among all sites; it is
    registered where it is owned, not here.

    Attributes:
        combine: what makes the bank's one source of the encoder's (a soup), None where the bank
            holds the sources themselves.
    """

    def __init__(self, bank: Bank) -> None:
        super().__init__()
        self.bank = bank
        self._omega: list[Tensor] = []
        self._settings = ScaLearnSettings()
        self._folded: tuple[Tensor, Tensor] | None = None
        self._mask: PerStep[Tensor] = PerStep()
        self._gate: Gate | None = None
        self._groups: RowGates | None = None
        self.combine: Callable[[Sequence[PlainSource]], PlainSource] | None = None

    def bind(
        self,
        omega: Tensor,
        settings: ScaLearnSettings,
        gate: Gate | None = None,
        groups: RowGates | None = None,
    ) -> None:
        """Use ``omega`` (K,D) or (K,1) from now on; where there is a gate, what it makes of it.

        Args:
            groups: what the sources of each row are multiplied by besides.
        """
        self._omega = [omega]
        self._gate = gate
        self._groups = groups
        self._settings = settings
        self._folded = None

    @property
    def omega(self) -> Tensor:
        """(K,D) or (K,1), as trained."""
        return self._omega[0]

    def effective(self) -> Tensor:
        """omega as it enters the sum: normalised, then, while training, dropped out.

        Of gates by group those that were chosen for all rows are in it, no row's own.
        What is stored is omega itself; :func:`mtl.zoo.composition.normalised` reads it likewise.
        """
        omega = self._omega[0]
        if self._gate is not None:
            omega = self._gate(omega, training=self.training)
        if self._settings.normalise == "mean":
            omega = omega / omega.sum(0, keepdim=True)
        elif self._settings.normalise == "softmax":
            omega = omega.softmax(0)
        if self._groups is not None and self._groups.chosen is not None:
            omega = omega * self._groups.chosen
        dropout = self._settings.dropout
        if not self.training or not dropout:
            return omega
        return omega * self._mask(lambda: functional.dropout(torch.ones_like(omega), dropout, True))

    @property
    def plain(self) -> bool:
        """Whether omega enters the sum as it is, but for dropout, over sources that are stacked."""
        made = self._gate is not None or self._groups is not None
        return type(self.bank) is Bank and not made and self._settings.normalise == "none"

    def mask(self, member: Member, draws: Draws) -> Tensor | None:
        """The dropout of this step, drawn for a run among several."""
        dropout = self._settings.dropout
        if not self.training or not dropout:
            return None
        return self._mask(lambda: draws.mask_of(member, self.omega, dropout))

    def forward(self, z: Tensor) -> Tensor:
        weight, bias = self._folded or self._fold()
        gates = self.row_gates()
        if gates is None:
            return self.bank.mix(z, weight, bias)
        return self.bank.mix_rows(z, gates, weight, bias)

    def row_gates(self) -> Tensor | None:
        """The gates (N,K) of the rows on their way; None where rows have none of their own."""
        if self._groups is None or self._groups.chosen is not None:
            return None
        gates = self._groups.rows
        assert gates is not None, "gates by row are those of a batch in its network"
        return gates

    @property
    def _by_row(self) -> bool:
        return self._groups is not None and self._groups.chosen is None

    def _fold(self) -> tuple[Tensor, Tensor]:
        fold = self.bank.scaled if self._by_row else self.bank.fold
        return fold(self.effective())

    def hold(self) -> None:
        """Fold once and use the result until :meth:`release`."""
        with torch.no_grad():
            self._folded = self._fold()

    def release(self) -> None:
        """Fold in every forward again."""
        self._folded = None


register(ScaLearnFusion, ScaLearnSite)


_MAPS = ("up", "bias")


def _beside(sites: Sequence[ScaLearnSite], stacked: Stacked) -> Answer:
    """The sites of several runs as one: every run has its own omega folded, one product mixes all.

    Sources that all runs have are computed for all rows at once.
    """
    banks = [site.bank for site in sites]
    if len({bank.up.shape for bank in banks}) > 1:
        raise UnfitError("sources of other widths")
    shared = alike(banks)
    omegas = stacked.get(id(sites[0].omega))
    plainly = all(site.plain and torch.equal(site.bank.owner, banks[0].owner) for site in sites)
    held = {} if shared else {n: torch.stack([getattr(b, n) for b in banks]) for n in _MAPS}

    def folded(blocks: Blocks, draws: Draws) -> tuple[Tensor, Tensor]:
        """W (N,S,D) and b (N,D) of the runs in the pass."""
        if omegas is not None and plainly:
            own = chosen({**held, "omega": omegas}, blocks)
            omega, maps = own["omega"], [own.get(n, getattr(banks[0], n)) for n in _MAPS]
            masks = [sites[member.piece.run].mask(member, draws) for member in blocks.members]
            kept = [mask for mask in masks if mask is not None]
            return banks[0].fold_all(omega * torch.stack(kept) if kept else omega, *maps)
        folds = []
        for member in blocks.members:
            with draws.of(member):
                folds.append(sites[member.piece.run]._fold())
        weight, bias = (torch.stack(parts) for parts in zip(*folds, strict=True))
        return weight, bias

    def answer(x: Tensor, blocks: Blocks, draws: Draws) -> Tensor:
        weight, bias = folded(blocks, draws)
        if getattr(banks[0], "dense", False):  # the whole delta (out,in) of every run
            laid = blocks.spread(x)
            out = laid.flatten(1, -2) @ weight.transpose(1, 2)
            return blocks.gather(out.view(*laid.shape[:-1], out.shape[-1]))
        if shared:
            features = banks[0].features(x)
        else:
            parts = zip(blocks.runs, x.split(blocks.rows), strict=True)
            features = torch.cat([banks[run].features(part) for run, part in parts])
        laid = blocks.spread(features)
        out = torch.baddbmm(bias.unsqueeze(1), laid.flatten(1, -2), weight)
        return blocks.gather(out.view(*laid.shape[:-1], out.shape[-1]))

    return answer


BATCHED[ScaLearnSite] = _beside


def attach(encoder: Any, sources: Sequence[str], settings: ScaLearnSettings) -> Composed:
    """Put a ScaLearn composition of the adapters named ``sources`` into ``encoder``; active.

    Drawing of omega uses torch's global generator, which the run has seeded.

    Raises:
        RequestError: a source without sites (then nothing could be composed), sources of two
            kinds, or more layer groups than layers.
    """
    owner = _owners(settings, encoder.config.num_hidden_layers)
    sites = scalearn_sites(encoder, sources)
    omegas: dict[str, nn.Parameter] = {}
    groups = None
    if settings.gate:
        counts = names_of(settings.groups)
        device = next(iter(sites.values())).bank.up.device
        ones = torch.ones(len(counts), len(sources), device=device)
        groups = RowGates(settings.gate, counts, nn.Parameter(ones))
    for key, site in sites.items():
        name = owner(key)
        if name not in omegas:
            width = site.bank.up.shape[1] if settings.per == "dim" else 1
            start = torch.empty(len(sources), width, device=site.bank.up.device)
            start.normal_(settings.init_scale / len(sources), settings.init_std)
            omegas[name] = nn.Parameter(start, requires_grad=settings.learn)
        site.bind(omegas[name], settings, groups=groups)
    named = {f"{OMEGA}.{key}": parameter for key, parameter in omegas.items()}
    gates = {} if groups is None else {GATES: groups.gates}
    # One registration per omega, on the encoder, so that `.to(device)` moves it with the rest.
    encoder.register_module(
        "omega",
        nn.ParameterDict({k.replace(".", "_"): p for k, p in {**omegas, **gates}.items()}),
    )

    def penalty() -> Mapping[str, Tensor]:
        away = torch.stack([(1 - omega.mean(1)).square().sum() for omega in omegas.values()])
        return {"omega_reg": settings.regularise / len(sources) * away.sum()}

    penalties = [penalty] if settings.regularise and settings.learn else []
    if groups is not None:
        penalties.append(lambda: {"gate_prior": groups.away(settings.gate_std)})
    stored = {**named, **gates}
    return Composed(
        parameters={**(named if settings.learn else {}), **gates},
        tensors=lambda: {name: value.detach().clone() for name, value in stored.items()},
        load=lambda tensors: load_stored(OMEGA, stored, tensors),
        penalties=penalties,
        evaluating=partial(held, sites.values()),
        lr_factors=dict.fromkeys(gates, settings.gate_rate or RATE),
        groups=groups,
    )


def scalearn_sites(encoder: Any, sources: Sequence[str]) -> dict[str, ScaLearnSite]:
    """Put a site over the adapters named ``sources`` wherever they sit: site key → site.

    Raises:
        RequestError: see :func:`attach`.
    """
    if are_low_rank(encoder, sources):
        return add_linear_sites(encoder, sources, ScaLearnSite)
    return add_sites(encoder, sources, ScaLearnFusion())


@contextmanager
def held(sites: Iterable[ScaLearnSite]) -> Iterator[None]:
    """Fold every site once for what is evaluated inside."""
    for site in sites:
        site.hold()
    try:
        yield
    finally:
        for site in sites:
            site.release()


def shares(composed: Composed, settings: ScaLearnSettings) -> SourceWeights:
    """omega as it enters the sum, the same for every input.

    Raises:
        ZooError: a weight is not finite, so that it cannot be stored.
    """
    used = {
        name.partition(".")[2]: normalised(omega.double().cpu().numpy(), settings.normalise)
        for name, omega in composed.tensors().items()
        if is_of(OMEGA, name)
    }
    return weigh(OMEGA, used)


def _owners(settings: ScaLearnSettings, layers: int) -> Callable[[str], str]:
    """Site key (``3`` or ``3.mh_adapter``) → name of the omega that it uses.

    ``shared`` for all layers, ``3`` for one, ``2-3`` for a group of them; with the location behind
    it where a layer has several sites.
    """
    groups = 1 if settings.share_layers else settings.layer_groups
    if groups > layers:
        raise RequestError(f"layer_groups={groups} is more than the encoder's {layers} layers.")

    def owner(key: str) -> str:
        layer, dot, location = key.partition(".")
        if groups == 1:
            return f"shared{dot}{location}"
        if not groups:
            return key
        group = int(layer) * groups // layers
        inside = [index for index in range(layers) if index * groups // layers == group]
        span = f"{inside[0]}-{inside[-1]}" if len(inside) > 1 else layer
        return f"{span}{dot}{location}"

    return owner
