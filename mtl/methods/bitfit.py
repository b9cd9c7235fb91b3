"""BitFit: only the base's biases train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtl.methods.base import Method, Request
from mtl.methods.base_tensors import CHANGES_BASE, load_base, read_pooler, tuned_base
from mtl.methods.tuned import Tuned


@dataclass(frozen=True)
class BitFitSettings:
    """BitFit has no settings: every bias of embeddings and layers trains, LayerNorms' included.

    The pooler's bias trains where the head reads the pooler. BERT-base: 102,912 with it
    (specs/adapter_methods §6).
    """


def attach(encoder: Any, settings: BitFitSettings, name: str, request: Request) -> Tuned:
    """Unfreeze every bias of the base."""
    pooler = read_pooler(request.head)
    return tuned_base(
        encoder,
        [
            key
            for key, _ in encoder.named_parameters()
            if key.endswith(".bias") and (pooler or not key.startswith("pooler."))
        ],
    )


METHOD = Method(
    name="bitfit",
    settings=BitFitSettings,
    summary="the base's own biases",
    citation="Ben Zaken et al. 2022, arXiv:2106.10199; spec methods §6",
    attach=attach,
    load=load_base,
    refusal=CHANGES_BASE,
    weights=lambda settings: "delta",
    adds=False,
)
