"""Low-rank sources as one LoRA: ``Σ_k ω_k ⊙ (up_k (down_k x))`` is of rank Σ R_k.

With S = Σ R_k, at every linear module::

    A = [down_1; …; down_K]  (S,in)        B = [diag(ω_1)up_1 … diag(ω_K)up_K]  (out,S)

and alpha = r = S, so that both libraries scale by 1. LoRA, SoRA, AdaLoRA and VeRA are such sources,
their scales in up_k. ``peft`` keeps a rank per module; ``adapters`` has one rank for all, so that
modules of less (SoRA's, AdaLoRA's) get rows of zeros there.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mtl.backbone.adapter_files import save_adapter
from mtl.backbone.linear import Part, linear_paths, linear_sites, lora_views, whole_of
from mtl.compose.modules.scalearn import ScaLearnSite
from mtl.errors import RequestError, RunError
from mtl.files import read_safetensors
from mtl.methods.lora import stock_lora
from mtl.methods.low_rank import Factors
from mtl.methods.peft_files import PREFIX, config_dict, require_peft, save_peft

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.methods import PlainSource
    from mtl.runs import Loaded

STOCK = ("q", "k", "v", "intermediate", "output")
"""Where the LoRA of ``adapters`` can be."""


@dataclass(frozen=True)
class FoldedLowRank:
    """One low-rank adapter in fp64: site (``"3.q"``) → factors, scale included."""

    sites: Mapping[str, Factors]

    @property
    def width(self) -> int:
        """The largest rank."""
        return max(found.down.shape[0] for found in self.sites.values())

    @property
    def modules(self) -> list[str]:
        """Names of the linear modules that are changed."""
        return list(dict.fromkeys(site.partition(".")[2] for site in self.sites))


@torch.no_grad()
def fold_low_rank(loaded: Loaded, drop: Collection[int] = ()) -> FoldedLowRank:
    """The loaded composition of low-rank sources, or single low-rank adapter, as one.

    Args:
        drop: numbers of sources to leave out.

    Raises:
        RequestError: nothing is left.
    """
    if loaded.composed is None:
        assert loaded.factors is not None
        return FoldedLowRank({site: _double(found) for site, found in loaded.factors().items()})
    if set(range(len(loaded.sources))) <= set(drop):
        raise RequestError(f"Nothing is left of {loaded.entry.ref} without its sources.")
    sites: dict[str, Factors] = {}
    composed: Any = loaded.network.encoder.low_rank_composition
    for name, site in composed.named_children():
        assert isinstance(site, ScaLearnSite)
        bank, omega = site.bank, site.effective().double()
        group: Any = bank.groups[0]  # all sources are linear: one group
        up = bank.up.double() * omega[bank.owner]
        keep = torch.tensor([k not in drop for k in bank.owner.tolist()], dtype=torch.bool)
        down = group.weight.double().cpu()[keep]
        sites[name.replace("_", ".", 1)] = Factors(down, up.cpu()[keep].t().contiguous())
    return FoldedLowRank(sites)


@torch.no_grad()
def plain_linears(loaded: Loaded) -> dict[str, tuple[list[PlainSource], Tensor]]:
    """What is added up at every linear module: K plain sources and omega (K,out) or (K,1).

    A single adapter is one source with an omega of 1.
    """
    if loaded.composed is None:
        assert loaded.factors is not None
        one = torch.ones(1, 1)
        return {site: ([found.source()], one) for site, found in loaded.factors().items()}
    sites: dict[str, tuple[list[PlainSource], Tensor]] = {}
    composed: Any = loaded.network.encoder.low_rank_composition
    for name, site in composed.named_children():
        bank: Any = site.bank
        factors = [
            Factors(bank.groups[0].weight[bank.owner == k], bank.up[bank.owner == k].t())
            for k in range(bank.count)
        ]
        found = [factor.source() for factor in factors]
        sites[name.replace("_", ".", 1)] = found, site.effective().detach()
    return sites


def _double(found: Factors) -> Factors:
    return Factors(found.down.detach().double().cpu(), found.up.detach().double().cpu())


# ------------------------------------------------------------------ adapters


@torch.no_grad()
def write_stock_lora(
    folder: Path,
    folded: FoldedLowRank,
    backbone: Backbone,
    name: str,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write it as a LoRA of stock ``adapters``.

    Raises:
        RequestError: it changes a module where that has no LoRA.
    """
    # A module whose rank is 0 in every layer needs no site.
    changed = {site: found for site, found in folded.sites.items() if found.down.shape[0]}
    modules = FoldedLowRank(changed or folded.sites).modules
    other = [module for module in modules if module not in STOCK]
    if other:
        raise RequestError(
            f"Cannot export {name} to adapters: its LoRA has no site at {', '.join(other)} (the "
            "attention's output projection). Nearest: --to peft, which has, or sources of "
            f"--set modules={','.join(m for m in modules if m in STOCK) or 'q,v'}."
        )
    encoder = backbone.encoder().to(dtype)
    rank = max(1, folded.width)
    config = stock_lora(encoder, modules, r=rank, alpha=rank)
    encoder.add_adapter(name, config=config)
    sites = linear_sites(encoder, modules)
    for linear in sites.values():
        lora: Any = whole_of(linear).loras[name]  # type: ignore[index,union-attr]
        lora.to(dtype)
        for parameter in (lora.lora_A, lora.lora_B):
            parameter.zero_()
    for site, linear in sites.items():
        found = folded.sites[site]
        used = found.down.shape[0]
        down, up, _ = lora_views(linear, name)
        down[:used] = found.down.to(dtype)
        up[:, :used] = found.up.to(dtype)
    save_adapter(encoder, name, folder, backbone.base.id)


# ------------------------------------------------------------------ peft


def write_peft_lora(
    folder: Path, folded: FoldedLowRank, backbone: Backbone, dtype: torch.dtype = torch.float32
) -> None:
    """Write it as a LoRA of ``peft``: ``adapter_config.json`` and ``adapter_model.safetensors``.

    Modules of rank 0 are left out.

    Raises:
        RequestError: ``peft`` is not installed, or nothing is changed at all.
    """
    require_peft("--to peft writes")
    from peft import LoraConfig

    wholes = _wholes(folded, backbone)
    ranks = {path: found.down.shape[0] for path, found in wholes.items() if found.down.shape[0]}
    if not ranks:
        raise RequestError("Every module has rank 0: there is nothing to export.")
    most = max(ranks.values())
    odd = {path: rank for path, rank in ranks.items() if rank != most}
    config = LoraConfig(
        r=most,
        lora_alpha=most,
        lora_dropout=0.0,
        bias="none",
        target_modules=sorted(ranks),
        rank_pattern=odd,
        alpha_pattern=odd,
    )
    tensors: dict[str, Tensor] = {}
    for path in ranks:
        tensors[f"{PREFIX}{path}.lora_A.weight"] = wholes[path].down.to(dtype)
        tensors[f"{PREFIX}{path}.lora_B.weight"] = wholes[path].up.to(dtype)
    save_peft(folder, config_dict(config), tensors, backbone.base.id)


def _wholes(folded: FoldedLowRank, backbone: Backbone) -> dict[str, Factors]:
    """Factors by the paths of linears; those of a fused one's parts stacked, each in its rows.

    Parts q, v of three: ``down = [down_q; down_v]``, ``up = [[up_q, 0], [0, 0], [0, up_v]]``.
    """
    encoder = backbone.encoder()
    linears, paths = (
        linear_sites(encoder, folded.modules),
        linear_paths(encoder, folded.modules),
    )
    parts: dict[str, list[str]] = {}
    for site, path in paths.items():
        parts.setdefault(path, []).append(site)
    found = {}
    for path, sites in parts.items():
        first = linears[sites[0]]
        if not isinstance(first, Part):
            found[path] = folded.sites[sites[0]]
            continue
        down = torch.cat([folded.sites[site].down for site in sites])
        up = down.new_zeros(first.parts * first.out_features, down.shape[0])
        column = 0
        for site in sites:
            part: Any = linears[site]
            own = folded.sites[site].up
            rows = slice(part.start, part.start + part.out_features)
            up[rows, column : column + own.shape[1]] = own
            column += own.shape[1]
        found[path] = Factors(down, up)
    return found


def load_peft(backbone: Backbone, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """A copy of the base under ``peft`` with the exported LoRA.

    Raises:
        RunError: ``peft`` does not take all of it up.
    """
    from peft import PeftModel

    base = copy.deepcopy(backbone.pristine).to(dtype)
    model = PeftModel.from_pretrained(base, str(folder))
    taken = sum(name.endswith(".lora_A.default.weight") for name in model.state_dict())
    stored = len(read_safetensors(folder / "adapter_model.safetensors")[0])
    if 2 * taken != stored:
        raise RunError(f"peft took up {2 * taken} of the {stored} tensors exported to {folder}.")
    return model.eval()
