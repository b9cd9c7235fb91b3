"""One encoder, a head per task: the batch's task picks the head and what the encoder computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from mtl.backbone import Network
from mtl.backbone.heads import Head


class JointNetwork(nn.Module):
    """Logits (N,C_t) of a batch of task t.

    Args:
        encoder: shared by all tasks.
        heads: task id → its head.
        use: task id → the context in which the encoder computes for it.
    """

    def __init__(
        self,
        encoder: nn.Module,
        heads: Mapping[str, Head],
        use: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        super().__init__()
        # Task ids hold characters that module names must not.
        self._place = {task: f"task{index:04d}" for index, task in enumerate(heads)}
        self.networks = nn.ModuleDict(
            {self._place[task]: Network(encoder, head) for task, head in heads.items()}
        )
        self._use = use

    def forward(self, batch: Mapping[str, Any]) -> torch.Tensor:
        task = batch["task"]
        with self._use(task):
            return self.networks[self._place[task]](batch)
