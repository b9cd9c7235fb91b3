"""The torch side of :mod:`mtl.methods.unipelt`: gates over the tokens that are no padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mtl.methods.unipelt import UniPELTSettings


def ready(encoder: Any, settings: UniPELTSettings, name: str) -> None:
    """Let the gates of the adapter ``name`` pass over padding, unless the settings count it."""
    if settings.gate_padding:
        return
    mask: list[Tensor | None] = [None]

    def remember(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        mask[0] = kwargs.get("attention_mask")

    encoder.register_forward_pre_hook(remember, with_kwargs=True)
    for gate in gates(encoder, name):
        gate.register_forward_hook(partial(_over_real_tokens, mask))


def gates(encoder: nn.Module, name: str) -> Iterator[nn.Linear]:
    """The gates of the adapter ``name``: (B,T,D) → (B,T,1), of a prefix (B,T,2) where keys and
    values have one each."""
    for key, module in encoder.named_modules():
        parts = key.split(".")
        inside = parts[-1] == "gate" and name in parts  # of the bottleneck, of LoRA
        if isinstance(module, nn.Linear) and (inside or parts[-2:] == ["prefix_gates", name]):
            yield module


def _over_real_tokens(
    mask: list[Tensor | None], module: nn.Module, args: tuple[Tensor, ...], logits: Tensor
) -> Tensor:
    """The gate's logits (B,T,G), with that of the real tokens' mean wherever there is padding.

    ``adapters`` takes the mean of their sigmoids over all T, which is then the mean over the real
    tokens; where there is no padding nothing changes.
    """
    attention = mask[0]
    # DeBERTa sends its table of relative positions (1,P,D) through query and key, too: no text
    if attention is None or attention.shape != logits.shape[:2]:
        return logits
    real = (attention != 0).unsqueeze(-1)
    opened = torch.where(real, logits.sigmoid(), logits.new_zeros(()))
    mean = opened.sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)
    return torch.where(real, logits, torch.logit(mean, eps=1e-6).to(logits.dtype))
