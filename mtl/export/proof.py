"""One batch both ways: through the entry as the zoo runs it, and through stock ``adapters``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtl.backbone.encoder_fit import position_limit
from mtl.backbone.network import INPUTS
from mtl.errors import RunError

if TYPE_CHECKING:
    from mtl.backbone import Backbone

TOLERANCE = 1e-5
"""Largest logit difference in fp32 (of logits above 1: relative to the largest)."""
ROWS, TOKENS = 16, 48


def proof_batch(
    backbone: Backbone, *, rows: int = ROWS, tokens: int = TOKENS, choices: int = 1
) -> dict[str, Tensor]:
    """A padded batch of random text of the base's vocabulary, the same for a tokenizer.

    Every second row is a pair of texts; lengths differ, so that padding is in it. With several
    choices per example, the rows are a multiple of them.
    """
    rows = -(-rows // choices) * choices
    tokenizer = backbone.tokenizer
    generator = torch.Generator().manual_seed(0)
    special = set(tokenizer.all_special_ids)
    known = torch.tensor([i for i in range(len(tokenizer)) if i not in special])
    places = position_limit(backbone.pristine.config) or tokens
    limit = min(tokens, tokenizer.model_max_length, places)

    def text(most: int) -> str:
        count = int(torch.randint(1, most + 1, (1,), generator=generator))
        drawn = known[torch.randint(len(known), (count,), generator=generator)]
        return tokenizer.decode(drawn.tolist())

    firsts = [text(limit // 2) for _ in range(rows)]
    seconds = [text(limit // 2) if row % 2 else "" for row in range(rows)]
    encoded = tokenizer(
        firsts, seconds, padding=True, truncation=True, max_length=limit, return_tensors="pt"
    )
    return {name: encoded[name] for name in INPUTS if name in encoded}


@torch.no_grad()
def compare(
    reference: nn.Module,
    other: Any,
    batch: dict[str, Tensor],
    plain: nn.Module,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """The logits of both on ``batch``, the largest difference and its limit, as JSON.

    On the CPU, where fp32 means fp32.

    Args:
        plain: the same head on the encoder without any adapter. What it answers differently,
            ``adapter_effect``, is the difference that an adapter lost on the way would have made.
    """
    ours, theirs = reference.cpu()(batch).double(), other.cpu()(batch).double()
    if ours.shape != theirs.shape:
        raise RunError(
            f"The two ways give logits of other shapes: {tuple(ours.shape)}, {tuple(theirs.shape)}."
        )
    return {
        "rows": ours.shape[0],
        "tokens": batch["input_ids"].shape[1],
        "max_logit": float(ours.abs().max()),
        "max_logit_difference": float((ours - theirs).abs().max()),
        "adapter_effect": float((ours - plain.cpu()(batch).double()).abs().max()),
        "limit": tolerance * max(1.0, float(ours.abs().max())),
    }


def says_little(found: dict[str, Any]) -> bool:
    """Whether the files could lack the adapter and pass all the same (one that learned nothing)."""
    return bool(found["adapter_effect"] <= found["limit"])


def check(found: dict[str, Any], what: str) -> None:
    """Refuse a difference above the limit.

    Raises:
        RunError: says the difference; NaN is one, too.
    """
    if not found["max_logit_difference"] <= found["limit"]:
        raise RunError(
            f"{what} does not answer as the entry does: largest logit difference "
            f"{found['max_logit_difference']:.3g} over {found['rows']} rows, allowed "
            f"{found['limit']:.3g}. Nothing was written."
        )
