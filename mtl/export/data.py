"""The data of an entry's task, as its run saw them, and what models score on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.data.task_data import rows_of
from mtl.engine import Attached, EvalSet, Evaluation, evaluate, open_device
from mtl.engine.passes import usual_passes
from mtl.runs.loading import data_of_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from mtl.backbone import Backbone
    from mtl.data import TaskData
    from mtl.engine import Device
    from mtl.runs import Workspace
    from mtl.zoo import Entry

BATCH = 32


@dataclass(frozen=True)
class EntryData:
    """Splits of the task of ``entry``, encoded on first use.

    Attributes:
        group: the group of rows that the splits to score on are limited to; None for all rows.
    """

    entry: Entry
    backbone: Backbone
    workspace: Workspace
    group: str | None = None

    @cached_property
    def task_data(self) -> TaskData:
        """The rows that the entry's run saw; where there is a group, of dev and tests its own.

        Raises:
            RequestError: data that cannot be had, or that are not the ones of the run.
        """
        data = data_of_entry(self.entry, self.workspace)
        if self.group is None:
            return data
        splits, fingerprints = dict(data.splits), dict(data.fingerprints)
        for name in set(splits) - {"train"}:
            whole = splits.pop(name)
            rows = np.flatnonzero(np.array(whole.groups, dtype=object) == self.group)
            if len(rows):
                part = rows_of(data, name, rows)
                splits[name], fingerprints[name] = part.splits[name], part.fingerprint
        return replace(data, splits=splits, fingerprints=fingerprints)

    @cached_property
    def device(self) -> Device:
        """In fp32, wherever it is."""
        return open_device("fp32", hidden_size=self.backbone.base.hidden_size)

    def split(self, name: str) -> EvalSet:
        """One split, tokenised."""
        data = self.task_data
        return EvalSet(data.spec, self.backbone.encode(data, name, self.workspace.cache))

    def tests(self) -> list[str]:
        """Names of the splits that are no training data, dev first."""
        return [name for name in self.task_data.splits if name != "train"]

    def score(self, network: nn.Module | Attached, split: str) -> Evaluation:
        """``network`` (batch → logits) on ``split``."""
        attached = network if isinstance(network, Attached) else Attached(network, {}, [])
        attached.network.to(self.device.torch_device)
        return evaluate(
            attached, self.split(split), self.device, usual_passes(self.device.torch_device)
        )

    def batches(self, split: str, rows: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
        """Unlabelled text: batches of up to ``rows`` rows of ``split``, shuffled."""
        from mtl.data import train_order
        from mtl.engine.feed import to_device

        encoded, left = self.split(split).encoded, rows
        for chosen in train_order(encoded, BATCH, seed, 0):
            chosen = chosen[:left]
            batch = encoded.collate(chosen)
            yield to_device(
                {k: v for k, v in batch.items() if k not in {"labels", "row"}},
                self.device.torch_device,
            )
            left -= len(chosen)
            if left <= 0:
                return


def change(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """What an approximation does to a split: headline metric, predictions, logits."""
    metric = before.spec.headline
    return {
        "metric": metric,
        "before": float(before.metrics[metric]),
        "after": float(after.metrics[metric]),
        # of numbers, equal ones say nothing
        "equal_predictions": None
        if before.spec.kind == "regression"
        else float(np.mean(_same(before.prediction, after.prediction))),
        "max_logit_difference": float(np.abs(before.logits - after.logits).max()),
        "n": len(before.prediction),
    }


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.all((a == b).reshape(len(a), -1), axis=1)


def scores(found: Mapping[str, Evaluation]) -> dict[str, dict[str, float]]:
    """Metrics by split, as JSON."""
    return {
        split: {name: float(value) for name, value in result.metrics.items()}
        for split, result in found.items()
    }
