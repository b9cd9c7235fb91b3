"""What an entry adds to its base, site by site, as a sum of plain sources; or why it is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtl.backbone import load_head
from mtl.backbone.bounded import bounded
from mtl.backbone.injection import freeze
from mtl.compose.composition import COMPOSITIONS
from mtl.compose.stored import find_parents
from mtl.export.folding import UnfoldableError, placement_of, plain_sites
from mtl.export.low_rank import plain_linears
from mtl.methods import find_method
from mtl.methods.source import PlainSource
from mtl.runs.loading import held_in
from mtl.words import counted
from mtl.zoo.composition import gate_column, used_weights

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.backbone.heads import Head
    from mtl.runs import Loaded
    from mtl.zoo import Entry, Zoo


_ALL_ROWS = {"deberta-v2": {"q", "k"}}
"""Type of a base → linear modules that it also applies to something that all rows share."""


SHARED = ("fp32", "bf16")
"""Precisions of a held base that entries share. In nf4 no GPU was at hand to compare answers."""


@dataclass(frozen=True)
class SourceParts:
    """One source at all its sites, fp32 on the CPU.

    Attributes:
        key: sha256 of all of it, by which entries share it in memory.
        sites: site → down (R,in), down_bias (R,), up (R,out), up_bias (out,).
    """

    key: str
    sites: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Gates:
    """What ω is multiplied by for rows of each group (:mod:`mtl.compose.groups`).

    Attributes:
        codes: group → its row in ``table``.
        table: (G+1,K), in the order of the sources; the last row, of rows of other groups, is 1.
    """

    codes: Mapping[str, int]
    table: Tensor

    def of(self, group: str) -> Tensor:
        """(K,) for rows of ``group``."""
        return self.table[self.codes.get(group, len(self.codes))]

    def padded(self, sources: int, device: torch.device) -> Gates:
        """The same on ``device`` for so many sources, the further ones ungated."""
        more = sources - self.table.shape[1]
        return Gates(self.codes, nn.functional.pad(self.table, (0, more), value=1.0).to(device))


@dataclass(frozen=True)
class Parts:
    """``Σ_k ω_k ⊙ (U_k act(D_k z + c_k) + b_k)`` at every site of an entry, and its head.

    Attributes:
        placement: signature of the bottlenecks as JSON; empty for deltas of linear modules.
        activation: act, by its name in ``adapters``.
        sources: K of them, in the order of their keys.
        omega: site → (K,out).
        head: frozen; None of a source.
        gates: of a composition with gates by group, whose ω is the pooled one.
    """

    placement: str
    activation: str
    sources: Sequence[SourceParts]
    omega: Mapping[str, Tensor]
    head: Head | None
    gates: Gates | None = None


def why_alone(entry: Entry, zoo: Zoo) -> tuple[str, bool]:
    """Why an entry shares no batch with others, as manifests tell; "" where it may.

    Returns:
        The reason, and whether the base's own tensors are changed, so that it needs its own copy.
    """
    manifest = entry.manifest
    if manifest.kind == "joint":
        return "a joint model, whose adapters are made for each task", True
    if held_in(entry) not in SHARED:
        return f"its base is held in {held_in(entry)}", True
    whole = find_parents(entry, zoo) if manifest.kind == "composition" else [entry]
    for part in whole:
        if part.manifest.weights == "delta":
            return f"{part.manifest.method} changes weights of the base itself", True
    for part in whole:
        if not find_method(part.manifest.method).composes:
            return f"{part.manifest.method} adds no bottlenecks or low-rank products", False
    return "", False


@torch.no_grad()
def read_parts(loaded: Loaded) -> Parts:
    """The parts of a loaded adapter or composition that :func:`why_alone` has nothing against.

    Raises:
        UnfoldableError: it is no sum of plain sources of one activation.
    """
    placement = ""
    if loaded.low_rank:
        sites = plain_linears(loaded)
        _check_cost(sites)
        kind = str(loaded.entry.manifest.base["type"])
        if {site.partition(".")[2] for site in sites} & _ALL_ROWS.get(kind, set()):
            raise _unfoldable(
                f"in {kind} its linear modules also read the relative positions, once for all rows"
            )
    else:
        placement = json.dumps(placement_of(loaded), sort_keys=True)
        sites = {
            f"{layer}.{location}": (views, omega)
            for (layer, location), views, omega in plain_sites(loaded)
        }
    activations = {view.activation for views, _ in sites.values() for view in views}
    if len(activations) > 1:
        raise _unfoldable(
            f"its sources have several activations ({', '.join(sorted(activations))})"
        )
    count = len(next(iter(sites.values()))[0])
    sources = [
        _source({site: views[k] for site, (views, _) in sites.items()}) for k in range(count)
    ]
    # Sums in one order, whatever the order of the sources: who has the same ones shares products.
    order = sorted(range(count), key=lambda k: sources[k].key)
    omegas = {}
    for site, (views, omega) in sites.items():
        wide = omega.float().cpu().expand(count, views[0].up_weight.shape[0])
        omegas[site] = wide[order].contiguous()
    head: Any = loaded.network.head
    composed: Any = loaded.composed
    gates, groups = None, composed and composed.groups
    if groups is not None:
        own = groups.gates.detach().float().cpu()[:, order]
        codes = {name: code for code, name in enumerate(groups.counts)}
        gates = Gates(codes, torch.cat([own, own.new_ones(1, count)]))
    return Parts(placement, activations.pop(), [sources[k] for k in order], omegas, head, gates)


def composed_parts(
    entry: Entry,
    parents: Sequence[Parts],
    backbone: Backbone,
    zoo: Zoo,
) -> Parts | None:
    """The parts of a composition from those of its sources and its stored omega, without a network.

    Args:
        parents: the parts of its sources alone, in the order of its manifest.

    Returns:
        None where that is not all there is to it (a control's twins, a soup, gates by group, a
        composition of another package): :func:`read_parts` of the loaded entry says it then.

    Raises:
        ZooError: its files are damaged.
    """
    if not is_plain_sum(entry):
        return None
    zoo.load_check(entry)
    with zoo.reading(entry), bounded(entry.ref):
        used = used_weights(entry)
        head = load_head(entry.folder, backbone.config, pooler=backbone.pooler)
    alike = {(found.placement, found.activation, tuple(found.omega)) for found in parents}
    if used is None or len(alike) != 1:
        return None
    freeze(head.eval())
    sources = [found.sources[0] for found in parents]
    order = sorted(range(len(sources)), key=lambda k: sources[k].key)
    omegas = {}
    for site, one in parents[0].omega.items():
        found = _at(used, site)
        if found is None:
            return None
        omegas[site] = torch.from_numpy(found).float().expand(-1, one.shape[1])[order].contiguous()
    placement, activation, _ = alike.pop()
    return Parts(placement, activation, [sources[k] for k in order], omegas, head)


def is_plain_sum(entry: Entry) -> bool:
    """Whether omega alone says what a composition makes of its sources."""
    manifest = entry.manifest
    known = COMPOSITIONS.get(manifest.method) if manifest.method in COMPOSITIONS else None
    return (
        known is not None
        and known.settings.__module__.startswith("mtl.compose.")
        and manifest.method not in {"soup", "fusion"}
        and not manifest.control
        and not gate_column(manifest.method_settings)
    )


def _at(used: Mapping[str, Any], site: str) -> Any:
    """The one omega of ``used`` that a site reads: its own, its layers', or all layers'."""
    layer, _, location = site.partition(".")
    found = []
    for key, value in used.items():
        layers, _, place = key.partition(".")
        first, _, last = layers.partition("-")
        if (layers == "shared" or int(first) <= int(layer) <= int(last or first)) and (
            place in {"", location}
        ):
            found.append(value)
    return found[0] if len(found) == 1 else None


def _check_cost(sites: Mapping[str, tuple[Sequence[PlainSource], Tensor]]) -> None:
    """Refuse factors that cost more than the linear modules they change (VeRA's)."""
    for views, _ in sites.values():
        outputs, inputs = views[0].up_weight.shape[0], views[0].down.shape[1]
        rank = sum(view.down.shape[0] for view in views)
        if rank * (inputs + outputs) > 2 * inputs * outputs:
            raise _unfoldable(
                f"its low-rank products, of {counted(rank, 'dimension')} in all, cost more than "
                "the linear modules that they change"
            )


def _source(views: Mapping[str, PlainSource]) -> SourceParts:
    digest = hashlib.sha256()
    sites: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
    for site, view in sorted(views.items()):
        down, down_bias, up, up_bias = (
            value.detach().float().cpu().contiguous()
            for value in (view.down, view.down_bias, view.up_weight.t(), view.up_bias)
        )
        sites[site] = down, down_bias, up, up_bias
        for tensor in sites[site]:
            digest.update(f"{site} {view.activation} {tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().reshape(-1).view("uint8").data)
    return SourceParts(digest.hexdigest(), sites)


def _unfoldable(reason: str) -> UnfoldableError:
    return UnfoldableError(f"No part of a mixed batch: {reason}.", reason)
