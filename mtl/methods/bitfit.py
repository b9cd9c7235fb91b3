"""BitFit: only the base's biases train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.engine.settings import Training
from mtl.methods.base_tensors import CHANGES_BASE, load_base, read_pooler, tuned_base
from mtl.methods.method import HeadSettings, Method, RunFacts

if TYPE_CHECKING:
    from mtl.methods.tuned import Tuned


@dataclass(frozen=True)
class BitFitSettings(HeadSettings):
    """Every bias of embeddings and layers trains, LayerNorms' included.

    The pooler's bias trains where the head reads the pooler. BERT-base: 102,912 with it. Its one
    setting: :class:`~mtl.methods.method.HeadSettings`.
    """


def attach(encoder: Any, settings: BitFitSettings, name: str, request: RunFacts) -> Tuned:
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
    citation="Ben Zaken et al. 2022, arXiv:2106.10199",
    training=Training(
        "TsinghuaC3I/SoRA, its BitFit baseline",
        {
            "lr": 8e-4,
            "epochs": 10,
            "batch_size": 100,
            "warmup": 0.06,
            "weight_decay": 0.1,
            "clip": 0.1,
            "select": "metric",
            "patience": 0,
        },
    ),
    attach=attach,
    load=load_base,
    refusal=CHANGES_BASE,
    weights=lambda settings: "delta",
    adds=False,
)
