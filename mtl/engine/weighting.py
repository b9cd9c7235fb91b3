"""The run setting ``class_weights``, as the loss takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from mtl.tasks.class_weights import BALANCED, class_weights

if TYPE_CHECKING:
    from mtl.engine.evaluation import EvalSet
    from mtl.engine.settings import RunSettings


def loss_weights(settings: RunSettings, train: Mapping[str, EvalSet]) -> dict[str, torch.Tensor]:
    """Task → (C,) weights by the labels that train; empty where the run does not balance.

    Args:
        train: task → its training split.
    """
    if settings.class_weights != BALANCED:
        return {}
    return {
        task: torch.from_numpy(class_weights(split.spec, split.encoded.labels))
        for task, split in train.items()
    }
