"""The torch side of :mod:`mtl.methods.sora`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.backbone.linear import Part, add_delta, linear_sites, module_names
from mtl.engine import Group, Stage
from mtl.methods.files import read_own, save_own
from mtl.methods.low_rank import Factors
from mtl.methods.modules.low_rank import check_shapes, install
from mtl.methods.tuned import Tuned

if TYPE_CHECKING:
    from mtl.engine import RunSettings
    from mtl.methods.method import RunFacts
    from mtl.methods.sora import SoRASettings


def proximal(gates: Tensor, xi: float, threshold: str) -> Tensor:
    """The gates after the threshold at ``xi``, any shape, by one pass.

    ``soft`` is ``sign(g)·max(|g| − xi, 0)``. ``reference`` is ``sign(g)·(|g| − xi)`` where
    ``|g| ≥ 2·xi`` and 0 elsewhere, except that ``|g| = xi`` exactly stays, as in its code.
    """
    size = gates.abs()
    shrunk = torch.where(size > xi, gates - gates.sign() * xi, gates)
    if threshold == "soft":
        return torch.where(size > xi, shrunk, torch.zeros_like(gates))
    return torch.where(shrunk.abs() < xi, torch.zeros_like(gates), shrunk)


class SoRA(nn.Module):
    """The gated factors of all S sites.

    Attributes:
        down, up: A (R,in) and B (out,R) by site.
        gate: (S,R), all gates in one tensor, so that threshold and L1 are one operation each.
        xi: the threshold of the current stage.
    """

    def __init__(self, linears: Mapping[str, nn.Linear | Part], settings: SoRASettings) -> None:
        super().__init__()
        self.settings = settings
        self.sites = list(linears)
        self.xi = settings.xi
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        for linear in linears.values():
            down = nn.Parameter(torch.empty(settings.rank, linear.in_features))
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))
            self.down.append(down)
            self.up.append(nn.Parameter(torch.zeros(linear.out_features, settings.rank)))
        self.gate = nn.Parameter(torch.randn(len(linears), settings.rank))

    def delta(self, index: int, x: Tensor) -> Tensor:
        """(B,T,in) → (B,T,out) at site ``index``; gates and scale enter B, not the tokens."""
        x = functional.dropout(x, self.settings.dropout, self.training)
        scale = self.gate[index] * (self.settings.alpha / self.settings.rank)
        # laid out by rows: a product with a thin transposed matrix has a slow backward pass on CPUs
        up = (self.up[index] * scale).t().contiguous()
        return functional.linear(x, self.down[index]) @ up

    def penalty(self) -> dict[str, Tensor]:
        """``l1``: eta · mean |g|."""
        return {"l1": self.settings.eta * self.gate.abs().mean()}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """The threshold, which follows every optimiser step."""
        if self.xi > 0:
            self.gate.copy_(proximal(self.gate, self.xi, self.settings.threshold))

    def begin(self, xi: float, fresh: bool) -> None:
        """Enter a stage."""
        self.xi = xi

    def plan(self, run: RunSettings) -> Sequence[Stage]:
        """The stages of the schedule."""
        first, *rest = self.settings.grid()
        return (
            Stage(f"xi={first:g}", begin=partial(self.begin, first)),
            *(
                Stage(
                    f"xi={xi:g}",
                    epochs=self.settings.stage_epochs,
                    begin=partial(self.begin, xi),
                    forget=True,  # a denser model of an earlier stage is no candidate
                )
                for xi in rest
            ),
        )

    @torch.no_grad()
    def pruned(self) -> dict[str, Tensor]:
        """diag(g)·A and B by site, without the ranks whose gate is zero; the scale is outside."""
        found = {}
        for index, site in enumerate(self.sites):
            gate = self.gate[index]
            kept = gate.nonzero().squeeze(1)
            found[f"{site}.A"] = (gate[kept].unsqueeze(1) * self.down[index][kept]).contiguous()
            found[f"{site}.B"] = self.up[index][:, kept].contiguous()
        return found


def gates(sora: SoRA) -> Group:
    """The gates and how they are optimised."""
    return Group(
        "gating", {"gate": sora.gate}, weight_decay=0.0, options={"eps": 1e-6}, adam_form="hf"
    )


def attach(encoder: Any, settings: SoRASettings, name: str, _: RunFacts) -> Tuned:
    """Add gated factors beside the chosen linears, trainable and active."""
    linears = linear_sites(encoder, module_names(settings.modules))
    sora = SoRA(linears, settings).train(encoder.training)
    handles = [
        add_delta(linear, partial(sora.delta, index))
        for index, linear in enumerate(linears.values())
    ]
    # One registration on the encoder, so that `.to(device)` moves it with the rest.
    encoder.register_module(f"sora_{name}", sora)
    factors = {f"{site}.A": sora.down[i] for i, site in enumerate(linears)}
    factors |= {f"{site}.B": sora.up[i] for i, site in enumerate(linears)}

    def finish() -> None:
        for handle in handles:
            handle.remove()
        install(encoder, name, scaled(sora.pruned(), settings))

    def save(folder: Path, base: str) -> None:
        store(encoder, settings, sora.pruned(), folder, base)

    return Tuned(
        [
            Group("method", factors),
            gates(sora),
        ],
        save,
        penalties=(sora.penalty,) if settings.eta else (),
        after=(sora.after_step,),
        plan=sora.plan,
        finish=finish,
        merged=sum(value.numel() for value in factors.values()),  # the gates enter A
    )


def store(
    encoder: Any, settings: SoRASettings, tensors: Mapping[str, Tensor], folder: Path, base: str
) -> None:
    """Write the factors that are left; the JSON says how many ranks each site kept."""
    ranks = {key[:-2]: len(tensors[key]) for key in sorted(tensors) if key.endswith(".A")}
    save_own(folder, "sora", settings, encoder, tensors, base, ranks=ranks)


def scaled(stored: Mapping[str, Tensor], settings: SoRASettings) -> dict[str, Factors]:
    """Stored factors by site, alpha/R folded into B."""
    scale = settings.alpha / settings.rank
    found = {}
    for site in sorted({key.rpartition(".")[0] for key in stored}):
        down, up = stored.get(f"{site}.A"), stored.get(f"{site}.B")
        if down is not None and up is not None:
            found[site] = Factors(down, up * scale)
    return found


def read(encoder: Any, settings: SoRASettings, folder: Path) -> dict[str, Factors]:
    """The stored factors by site.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    stored = scaled(read_own(folder, "sora", encoder), settings)
    return check_shapes(encoder, settings.modules, folder, stored)


def load(encoder: Any, settings: SoRASettings, name: str, folder: Path) -> Tuned:
    """Add the stored factors, frozen and active, each site with the rank that it kept.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    stored = read_own(folder, "sora", encoder)
    install(encoder, name, read(encoder, settings, folder))
    return Tuned(
        [],
        lambda target, base: store(encoder, settings, stored, target, base),
    )
