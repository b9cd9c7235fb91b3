"""Evaluation: logits over a split, one prediction per example, metrics with standard errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtl.data import eval_order
from mtl.engine.feed import collate, to_device
from mtl.tasks import KINDS, decode, score, task_loss
from mtl.tasks.caveats import summarise
from mtl.tasks.spans import MASKED

if TYPE_CHECKING:
    from mtl.data import Encoded, Passes
    from mtl.engine.attached import Trainable
    from mtl.engine.device import Device
    from mtl.tasks import TaskSpec


@dataclass(frozen=True)
class EvalSet:
    """A split to evaluate on; ``weights`` (C,) of the classes in its loss, where there are some."""

    spec: TaskSpec
    encoded: Encoded
    weights: torch.Tensor | None = None


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation gives.

    Attributes:
        loss: mean task loss over the rows.
        metrics: every metric of the task.
        row, label, prediction: one each per example, in the order of the split.
        logits: (rows,C) fp32; of a span extraction rows are windows, and C is 2·T of the longest.
        scores: (examples,·) fp32, what is stored of the logits.
    """

    loss: float
    metrics: Mapping[str, float]
    row: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    logits: np.ndarray
    scores: np.ndarray
    spec: TaskSpec
    table: Mapping[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Metric → value, standard error, n, caveat: the form in manifests."""
        counted = self.spec.kind == "classification"
        return {
            name: summarise(
                name,
                value,
                self.prediction,
                self.label,
                self.table,
                names=self.spec.labels,
                outputs=self.spec.num_outputs if counted else None,
            )
            for name, value in self.metrics.items()
        }


@torch.no_grad()
def answer(
    attached: Trainable, data: EvalSet, device: Device, passes: Passes
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a split, in their order, and their logits (rows,C) in fp32.

    Batches are sorted by length and dealt to the processes; results are put back in row order, so
    neither batch size nor processes change which row gets which logits; every process gets all.
    """
    network = attached.network
    was_training = network.training
    network.eval()
    rows: list[np.ndarray] = []
    outputs: list[torch.Tensor] = []
    try:
        with attached.evaluating():
            order = eval_order(data.encoded, passes)
            for indices in order[device.rank :: device.world]:
                batch = collate(data.spec.id, data.encoded, indices)
                rows.append(batch["row"].numpy())
                with device.autocast():
                    out = attached.logits(to_device(batch, device.torch_device))
                # One row of logits per example: choices stand side by side.
                outputs.append(out.float().reshape(len(rows[-1]), -1))
    finally:
        network.train(was_training)
    # Read at the end, so that a GPU never waits for the host between batches.
    logits = [out.cpu().numpy() for out in outputs]
    gathered = device.gather((np.concatenate(rows), stacked(logits)) if rows else None)
    parts = [part for part in gathered if part is not None]
    row = np.concatenate([part[0] for part in parts])
    values = stacked([part[1] for part in parts])
    row, first = np.unique(row, return_index=True)
    if not np.array_equal(np.sort(data.encoded.row), row):
        raise AssertionError("evaluation lost or invented rows")
    return row, values[first]


def evaluate(attached: Trainable, data: EvalSet, device: Device, passes: Passes) -> Evaluation:
    """Evaluate ``attached`` on ``data``: :func:`answer`, then loss and metrics over all logits."""
    row, values = answer(attached, data, device, passes)
    labels = data.encoded.labels[np.argsort(data.encoded.row, kind="stable")]
    both = torch.from_numpy(values), torch.from_numpy(labels)
    loss = float(task_loss(data.spec, *both, data.weights))
    kind, table = KINDS.get(data.spec.kind), data.encoded.table
    prediction = decode(data.spec, values, table)
    label = kind.targets(labels, table)
    metrics = score(data.spec, prediction, label, table)
    if kind.windows:
        row = np.arange(len(prediction), dtype=np.int64)
    scores = kind.scores(values, table)
    return Evaluation(loss, metrics, row, label, prediction, values, scores, data.spec, table)


def stacked(logits: list[np.ndarray]) -> np.ndarray:
    """The rows under one another, those of shorter batches filled up as positions without token."""
    width = max(part.shape[1] for part in logits)
    return np.concatenate(
        [
            np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=MASKED)
            for part in logits
        ]
    )
