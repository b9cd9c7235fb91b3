"""Encoder and head as one module: a batch in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from mtl.backbone.arch import find_arch
from mtl.backbone.heads import Head
from mtl.tasks.spans import MASKED

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Names of a batch that the encoder reads; the rest (labels, row, …) is not its business."""


class Network(nn.Module):
    """Logits (N,C) of a batch of N sequences, from an encoder prepared for adapters and a head.

    Positions count real tokens: a decoder's texts may be padded on either side.

    Shapes: ``input_ids`` and ``attention_mask`` (N,T); the head reads the first token's vector of
    the last layer (N,D), of a decoder the last real token's, of T5 and BART the mean over the real
    ones, or the base's pooled output or that mean where the head is of that kind. A head over
    tokens reads all of them (N,T,D) and gives (N,T,C), with :data:`mtl.tasks.spans.MASKED` at
    padding.

    Attributes:
        around: batch → a context for its way through the encoder, where that depends on more of
            the batch than :data:`INPUTS`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: Head,
        around: Callable[[Mapping[str, Any]], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        super().__init__()
        self.around = around
        self.encoder = encoder
        self.head = head
        arch = find_arch(str(getattr(getattr(encoder, "config", None), "model_type", "")))
        self.counts_positions = arch is not None and arch.decoder

    def forward(self, batch: Mapping[str, Any]) -> torch.Tensor:
        output = self.encode(batch)
        states = output.pooler_output if self.head.use_pooler else output.last_hidden_state
        return self.read(states, batch["attention_mask"])

    def encode(self, batch: Mapping[str, Any]) -> Any:
        """What the encoder makes of the batch, its own output class."""
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        if self.counts_positions:
            inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        with self.around(batch):
            return self.encoder(**inputs)

    def read(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits of the encoder's last states (N,T,D), or, for a pooler's head, of (N,D)."""
        if self.head.tokens:
            # Padding is no place for an answer, and must not matter to the softmax over positions.
            padding = attention_mask == 0
            return self.head(states).masked_fill(padding.unsqueeze(-1), MASKED)
        if self.head.use_pooler:
            return self.head(states)
        return self.head(pooled(states, attention_mask, self.head.pooling))


def pooled(states: torch.Tensor, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector per sequence of (N,T,D), (N,D): see :data:`mtl.backbone.arch_row.POOLINGS`."""
    if pooling == "mean":
        return mean_of(states, attention_mask)
    rows = torch.arange(states.shape[0], device=states.device)
    return states[rows, place_of(attention_mask, pooling)]


def place_of(attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Which token of (N,T) the pooling ``first`` or ``last`` reads, (N,)."""
    if pooling == "first":
        return torch.zeros_like(attention_mask[:, 0])
    assert pooling == "last", f"no token is the {pooling}"
    # The last 1 of the mask, wherever the padding is.
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (places * (attention_mask != 0)).argmax(1)


def mean_of(states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The mean of (N,T,D) over the tokens that are no padding, (N,D) in fp32 at least."""
    exact = torch.promote_types(states.dtype, torch.float32)
    mask = attention_mask.unsqueeze(-1).to(exact)
    return (states.to(exact) * mask).sum(1) / mask.sum(1)
