"""The torch side of :mod:`mtl.methods.hadamard`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtl.backbone.arch import arch_of
from mtl.engine import Group, Stage
from mtl.methods.base_tensors import unfreeze
from mtl.methods.files import fill, load_delta, read_own, save_delta, save_own
from mtl.methods.tuned import Tuned

if TYPE_CHECKING:
    from mtl.engine import RunSettings
    from mtl.methods.hadamard import HadamardSettings
    from mtl.methods.method import RunFacts


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
    dense = arch_of(encoder.config).linears["attention"]
    for index, layer in encoder.iter_layers():
        scale = ScaleShift(encoder.config.hidden_size)
        scales[str(index)] = scale
        linear = layer.get_submodule(dense)
        if settings.position == "projected":
            linear.register_forward_hook(lambda _, args, out, scale=scale: scale(out))
        else:
            linear.register_forward_pre_hook(lambda _, args, scale=scale: (scale(args[0]),))
        found |= {f"{index}.{key}": value for key, value in scale.named_parameters()}
    # One registration on the encoder, so that `.to(device)` moves them with the rest.
    encoder.register_module(f"hadamard_{name}", scales)
    return found


def _norms(encoder: Any, settings: HadamardSettings) -> list[str]:
    if settings.layer_norm == "none":
        return []
    where = arch_of(encoder.config).norms[settings.layer_norm]
    wanted = {
        id(parameter)
        for _, layer in encoder.iter_layers()
        for parameter in layer.get_submodule(where).parameters()
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
