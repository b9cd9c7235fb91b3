"""The two-pass consistency loss of AdaMix, as one pass over a doubled batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.backbone.network import INPUTS
from mtl.tasks import task_loss

if TYPE_CHECKING:
    from mtl.methods.modules.experts import Routing
    from mtl.tasks import TaskSpec


def symmetric_kl(first: Tensor, second: Tensor) -> Tensor:
    """``½ [KL(sg q ‖ p) + KL(sg p ‖ q)]`` per row, averaged; p, q the softmax of the logits (B,C).

    Its value is ``½ Σ (p − q)(log p − log q) / B``; its gradients are ``½ (p − q)/B`` for the first
    logits and ``½ (q − p)/B`` for the second.
    """
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    return 0.5 * (
        functional.kl_div(p, q.exp().detach(), reduction="batchmean")
        + functional.kl_div(q, p.exp().detach(), reduction="batchmean")
    )


def consistency_loss(
    routing: Routing, network: nn.Module, spec: TaskSpec, batch: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The task's loss on the first half of a doubled batch, and how much the second half differs.

    Both halves are the same rows, with experts of their own (``routing.passes``) and, because every
    row has its own mask, dropout of their own: the distribution of two passes in one. With a single
    logit, or labels that do not exclude each other, there is no softmax to compare: one pass.
    """
    weights = batch.get("class_weights")
    if spec.kind != "classification" or spec.num_outputs < 2 or not network.training:
        return {"task": task_loss(spec, network(batch).float(), batch["labels"], weights)}
    doubled = {
        key: torch.cat([value, value]) if key in INPUTS else value for key, value in batch.items()
    }
    routing.passes = 2
    try:
        first, second = network(doubled).float().chunk(2)
    finally:
        routing.passes = 1
    return {
        "task": task_loss(spec, first, batch["labels"], weights),
        "consistency": symmetric_kl(first, second),
    }
