"""Dev scores of entries, and which of several variants they choose.

A test score that chose between variants is no test score any more; dev is what choices are for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl.zoo import Entry

BEST_DEV = "best-dev"


@dataclass(frozen=True)
class OnDev:
    """The headline on dev, None where an entry has none, and what says which rows dev is.

    Rows of another metric are others.
    """

    value: float | None
    rows: str


def on_dev(entry: Entry, task: Mapping[str, Any], data: Mapping[str, Any], name: str = "") -> OnDev:
    """The dev score of one of an entry's tasks.

    Args:
        task, data: what the manifest says of the task and of its data.
        name: of the metric in the manifest; the task's headline if empty.
    """
    metric = name or str(task["headline"])
    item = entry.manifest.metrics.get("dev", {}).get(metric)
    splits = data.get("splits")
    mark = splits.get("dev") if isinstance(splits, Mapping) else None
    value = None if item is None else item["value"]
    rows = f"{mark or data.get('fingerprint')} {metric}"
    return OnDev(None if value is None else float(value), rows)


def dev_of(entry: Entry) -> OnDev:
    """The dev score of an entry of one task."""
    return on_dev(entry, entry.manifest.task, entry.manifest.data)


def best_by_dev(variants: Sequence[Sequence[OnDev]]) -> int | None:
    """The place of the variant whose runs have the best mean on dev, of equals the most runs.

    None where a variant has no dev score, or where dev is not the same rows for all.
    """
    means = []
    for runs in variants:
        values = [run.value for run in runs if run.value is not None]
        if not values:
            return None
        means.append((sum(values) / len(values), len(runs)))
    if len({run.rows for runs in variants for run in runs}) > 1:
        return None
    return max(range(len(means)), key=means.__getitem__)
