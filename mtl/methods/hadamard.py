"""Hadamard adapter: an element-wise scale and shift of the self-attention output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtl.engine import Group, Stage
from mtl.engine.settings import Training
from mtl.errors import RequestError, unknown
from mtl.methods.base_tensors import CHANGES_BASE, unfreeze
from mtl.methods.files import fill, load_delta, read_own, save_delta, save_own
from mtl.methods.method import Method, RunFacts
from mtl.methods.tuned import Tuned

if TYPE_CHECKING:
    from mtl.engine import RunSettings

POSITIONS = ("projected", "raw")
NORMS = ("attention", "output", "none")


@dataclass(frozen=True)
class HadamardSettings:
    """Per layer ``a' = w ⊙ a + b``, w starting at 1 and b at 0 (specs/adapter_methods §6.2).

    Training has two stages: first the head alone, then w, b and one LayerNorm per layer with the
    head frozen. 2·L·D parameters, and 2·L·D of LayerNorms: 36,864 on BERT-base. The paper's text
    leaves position and LayerNorm open, so both are settings.

    Attributes:
        position: a is the attention output after its output projection (``projected``), or before
            it (``raw``).
        layer_norm: the LayerNorm that trains: behind the ``attention``, behind the FFN
            (``output``), or ``none``.
        head_epochs: length of the first stage, 0 for the run's.
    """

    position: str = "projected"
    layer_norm: str = "attention"
    head_epochs: int = 0

    def __post_init__(self) -> None:
        if self.position not in POSITIONS:
            raise unknown("position", self.position, POSITIONS)
        if self.layer_norm not in NORMS:
            raise unknown("layer_norm", self.layer_norm, NORMS)
        if self.head_epochs < 0:
            raise RequestError(f"head_epochs={self.head_epochs} must not be negative.")


class ScaleShift(nn.Module):
    """``w ⊙ a + b`` of one layer: (B,T,D) → (B,T,D)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, a: Tensor) -> Tensor:
        return a * self.weight + self.bias


def _install(encoder: Any, settings: HadamardSettings, name: str) -> dict[str, nn.Parameter]:
    """Put a :class:`ScaleShift` into every layer; returns their parameters by layer."""
    found: dict[str, nn.Parameter] = {}
    scales = nn.ModuleDict()
    for index, layer in encoder.iter_layers():
        scale = ScaleShift(encoder.config.hidden_size)
        scales[str(index)] = scale
        dense = layer.attention.output.dense
        if settings.position == "projected":
            dense.register_forward_hook(lambda _, args, out, scale=scale: scale(out))
        else:
            dense.register_forward_pre_hook(lambda _, args, scale=scale: (scale(args[0]),))
        found |= {f"{index}.{key}": value for key, value in scale.named_parameters()}
    # One registration on the encoder, so that `.to(device)` moves them with the rest.
    encoder.register_module(f"hadamard_{name}", scales)
    return found


def _norms(encoder: Any, settings: HadamardSettings) -> list[str]:
    if settings.layer_norm == "none":
        return []
    where = "attention.output" if settings.layer_norm == "attention" else "output"
    wanted = {
        id(parameter)
        for _, layer in encoder.iter_layers()
        for parameter in layer.get_submodule(where).LayerNorm.parameters()
    }
    return [name for name, value in encoder.named_parameters() if id(value) in wanted]


def _tuned(
    encoder: Any,
    settings: HadamardSettings,
    own: dict[str, nn.Parameter],
    norms: dict[str, Any],
    trains: bool,
) -> Tuned:
    def save(folder: Path, base: str) -> None:
        save_own(folder, "hadamard", settings, encoder, own, base)
        save_delta(folder, norms)

    def plan(run: RunSettings) -> Sequence[Stage]:
        return (
            Stage("head", epochs=settings.head_epochs or None, train=("head",)),
            Stage("hadamard", train=("method",)),
        )

    groups = [Group("method", {**own, **norms})] if trains else []
    return Tuned(groups, save, plan=plan)


def attach(encoder: Any, settings: HadamardSettings, name: str, request: RunFacts) -> Tuned:
    """Add scale and shift to every layer and unfreeze the chosen LayerNorms."""
    own = _install(encoder, settings, name)
    return _tuned(encoder, settings, own, unfreeze(encoder, _norms(encoder, settings)), True)


def load(encoder: Any, settings: HadamardSettings, name: str, folder: Path) -> Tuned:
    """Add the stored scales, and put the stored LayerNorms into the base.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    stored = read_own(folder, "hadamard", encoder)
    own = _install(encoder, settings, name)
    for parameter in own.values():
        parameter.requires_grad_(False)
    fill("hadamard", own, stored)
    return _tuned(encoder, settings, own, load_delta(folder, encoder), False)


METHOD = Method(
    name="hadamard",
    settings=HadamardSettings,
    summary="scale and shift of the attention output, and the LayerNorm after it; two stages",
    citation="Chen et al. 2023, arXiv:2407.11033; spec methods §6.2",
    training=Training(
        "no rate is known from its paper; spec composition §3.2, of single adapters",
        {"lr": 3e-4, "epochs": 30, "patience": "5 epochs"},
    ),
    attach=attach,
    load=load,
    refusal=CHANGES_BASE,
    weights=lambda settings: "delta",
)
