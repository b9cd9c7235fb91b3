"""Which batches feed a run: a pure function of (seed, epoch), so that a killed run can go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from mtl.data import Encoded


class Feed(Protocol):
    """The training batches of a run."""

    def order(self, epoch: int) -> Sequence[tuple[str, np.ndarray]]:
        """The batches of an epoch, each as (task id, row numbers of its training split)."""

    def tokens(self, task: str, rows: np.ndarray) -> np.ndarray:
        """(B,) how many tokens each of these rows takes."""

    def collate(self, task: str, rows: np.ndarray) -> dict[str, Any]:
        """The padded tensors of these rows, with ``task`` beside them."""


@dataclass(frozen=True)
class TaskFeed:
    """Batches of one task, drawn anew in every epoch, padded to their longest."""

    task: str
    encoded: Encoded
    batch_size: int
    seed: int

    def order(self, epoch: int) -> Sequence[tuple[str, np.ndarray]]:
        from mtl.data import train_order

        return [
            (self.task, rows)
            for rows in train_order(self.encoded, self.batch_size, self.seed, epoch)
        ]

    def tokens(self, task: str, rows: np.ndarray) -> np.ndarray:
        return self.encoded.tokens_per_row[rows]

    def collate(self, task: str, rows: np.ndarray) -> dict[str, Any]:
        return collate(task, self.encoded, rows)


def collate(task: str, encoded: Encoded, rows: np.ndarray) -> dict[str, Any]:
    """``encoded``'s rows as a padded batch that knows its task."""
    return {**encoded.collate(rows), "task": task}


def to_device(batch: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """The batch with its tensors on ``device``.

    To a GPU they go through pinned memory: only from there does a copy run beside the host.
    """
    pin = torch.device(device).type == "cuda"

    def move(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        value = value.pin_memory() if pin and value.device.type == "cpu" else value
        return value.to(device, non_blocking=True)

    return {key: move(value) for key, value in batch.items()}
