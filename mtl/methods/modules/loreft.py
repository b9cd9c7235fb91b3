"""The torch side of :mod:`mtl.methods.loreft`: which tokens are the last ones of a short text."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from adapters import ForwardContext
from adapters.methods.reft import ReftLayer
from torch import Tensor, nn

if TYPE_CHECKING:
    from mtl.methods.loreft import LoReftSettings


def ready(encoder: Any, settings: LoReftSettings, name: str) -> None:
    """Let texts of fewer tokens than ``suffix_positions`` be changed at all of them.

    ``adapters`` stops at one beside longer ones, and mixes up its tokens where it stands alone.
    """
    if settings.suffix_positions:
        for layer in encoder.modules():
            if isinstance(layer, ReftLayer) and name in layer.refts:
                layer.register_forward_pre_hook(partial(_choose, settings))


def _choose(settings: LoReftSettings, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
    """Say at which tokens of (B,T,D) the forward that is on its way intervenes."""
    states, context = args[0], ForwardContext.get_context()
    if context is None or hasattr(context, "suff_idx"):
        return
    rows, length, width = states.shape
    first = torch.zeros(rows, dtype=torch.int64, device=states.device)
    size = torch.full_like(first, length)
    if hasattr(context, "seqlens"):
        first, size = context.offsets.view(-1), context.seqlens.view(-1)

    def at(places: Tensor) -> Tensor:
        return places.unsqueeze(-1).expand(-1, -1, width)

    if settings.prefix_positions:
        ahead = torch.arange(min(settings.prefix_positions, length), device=states.device)
        context.pref_idx = at(first.unsqueeze(1) + ahead)
    behind = torch.arange(-settings.suffix_positions, 0, device=states.device)
    # Places before the first token are that token, which is changed once. As many as are asked for:
    # `adapters` counts on that where it puts them back.
    places = (first + size).unsqueeze(1) + behind
    context.suff_idx = at(torch.maximum(places, first.unsqueeze(1)))
