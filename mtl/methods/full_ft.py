"""Full fine-tuning: everything of the base trains, as the upper bound of cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.engine.settings import Training
from mtl.methods.base_tensors import CHANGES_BASE, load_base, read_pooler, tuned_base
from mtl.methods.method import Method, RunFacts

if TYPE_CHECKING:
    from mtl.methods.tuned import Tuned


@dataclass(frozen=True)
class FullFineTuningSettings:
    """Settings of full fine-tuning.

    Attributes:
        embeddings: whether the embedding tables train, too.
    """

    embeddings: bool = True


def attach(encoder: Any, settings: FullFineTuningSettings, name: str, request: RunFacts) -> Tuned:
    """Unfreeze the base; its pooler only where the head reads it."""
    pooler = read_pooler(request.head)
    return tuned_base(
        encoder,
        [
            key
            for key, _ in encoder.named_parameters()
            if (pooler or not key.startswith("pooler."))
            and (settings.embeddings or not key.startswith("embeddings."))
        ],
    )


METHOD = Method(
    name="full-ft",
    settings=FullFineTuningSettings,
    summary="all weights of the base: the stored entry is as large as the base",
    citation="Devlin et al. 2019, arXiv:1810.04805",
    training=Training(
        "CPJKU/ScaLearn, src/scripts/full", {"lr": 2e-05, "epochs": 30, "patience": "5 epochs"}
    ),
    attach=attach,
    load=load_base,
    refusal=CHANGES_BASE,
    weights=lambda settings: "delta",
    adds=False,
)
