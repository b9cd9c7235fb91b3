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


def joined(batches: Sequence[Mapping[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    """What an encoder reads of the batches, under one another and padded to the longest."""
    longest = max(batch["input_ids"].shape[1] for batch in batches)
    found = {}
    for key, filler in (("input_ids", pad), ("attention_mask", 0), ("token_type_ids", 0)):
        parts = [batch[key] for batch in batches if key in batch]
        if parts:
            found[key] = torch.cat(
                [
                    torch.nn.functional.pad(part, (0, longest - part.shape[1]), value=filler)
                    for part in parts
                ]
            )
    return found


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
