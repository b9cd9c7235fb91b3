"""A head that is tried on features computed once.

Where nothing but a head trains, the encoder gives a row the same vector in every epoch, but for
its dropout. So one pass over the rows is enough to try the head, and what is left out (dropout in
the frozen encoder) is why this only ranks and never makes an entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from mtl.engine import Attached, EvalSet
from mtl.engine.evaluation import answer
from mtl.engine.passes import eval_passes

if TYPE_CHECKING:
    from mtl.data import Encoded
    from mtl.engine import Device
    from mtl.runs.run import Built, Run

HEAD = "head"
"""The group of parameters that may train on fixed features."""


class _Vector(nn.Module):
    """In the place of a head: gives what the head would read."""

    tokens = False

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.use_pooler, self.pooling = head.use_pooler, head.pooling

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        return vector


class _OnVectors(nn.Module):
    """A head alone, on batches of vectors."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = self.head(batch["features"])
        return logits


@dataclass(frozen=True)
class Vectors:
    """Rows as the head reads them; stands where the engine takes an ``Encoded``.

    Attributes:
        values: (n, choices·D) float32.
        labels, row, table: as of ``Encoded``.
    """

    values: np.ndarray
    labels: np.ndarray
    row: np.ndarray
    choices: int
    table: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) all rows are equally long."""
        return np.ones(len(self.row), dtype=np.int64)

    tokens_per_row = lengths

    def collate(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """``features`` (N,D) with N = B·choices, ``labels`` and ``row``."""
        values = self.values[rows].reshape(len(rows) * self.choices, -1)
        return {
            "features": torch.from_numpy(values),
            "labels": torch.from_numpy(self.labels[rows]),
            "row": torch.from_numpy(self.row[rows]),
        }


def fits_features(built: Built) -> bool:
    """Whether nothing but a head trains, and it reads one vector per sequence."""
    only_head = all(group.name == HEAD for group in built.attached.groups())
    return only_head and not built.network.head.tokens  # type: ignore[union-attr]


def vectors(run: Run, built: Built, encoded: Encoded, device: Device) -> Vectors:
    """What the head of ``built`` reads of every row, in evaluation; (n, choices·D)."""
    network: Any = built.network
    head = network.head
    network.to(device.torch_device)
    network.head = _Vector(head)
    try:
        passes = eval_passes(run.settings, device.torch_device)
        _, values = answer(built.attached, EvalSet(run.spec, encoded), device, passes)
    finally:
        network.head = head
    return Vectors(values, encoded.labels, encoded.row, encoded.choices, encoded.table)


def head_alone(run: Run, built: Built) -> Attached:
    """The head of ``built`` as a model of its own, on batches of :class:`Vectors`."""
    network: Any = built.network
    groups = built.attached.groups()
    return Attached(_OnVectors(network.head), {run.spec.id: run.spec}, groups)
