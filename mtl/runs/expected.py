"""What planned runs will take, by what finished ones like them took; nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from mtl.engine.hardware import device_name, resolve_precision
from mtl.methods.method import settings_dict

if TYPE_CHECKING:
    from mtl.runs.run import Run
    from mtl.runs.workspace import Workspace
    from mtl.zoo import Entry

LOOKED_AT = 50
"""Finished runs of a method that are read, at most."""


@dataclass(frozen=True)
class Pace:
    """How fast finished runs were that are like a planned one.

    Attributes:
        seconds: per planned step (evaluations and early stops are in it), the median of ``runs``.
        tasks: of these runs: the planned run's own, if any of it was finished.
    """

    seconds: float
    runs: int
    tasks: tuple[str, ...]


def alike(run: Run, workspace: Workspace) -> list[Entry]:
    """The zoo's entries of the run's base, kind, method and number of sources."""
    listed = [
        summary
        for summary in workspace.zoo.summaries(kind=run.kind, method=run.method)
        if summary.fingerprint == run.backbone.base.fingerprint
        and len(summary.parents) == len(run.parents)
    ]
    listed.sort(key=lambda summary: summary.task != run.task_id)
    return workspace.zoo.read(listed[:LOOKED_AT])


def pace(run: Run, entries: Sequence[Entry]) -> Pace | None:
    """How fast entries of :func:`alike` were on this device, with this batch; None if none was."""
    precision = resolve_precision(run.settings.precision)
    rates: dict[str, list[float]] = {}
    for entry in entries:
        training, settings = entry.manifest.training, entry.manifest.run_settings
        steps = _planned(settings, entry.manifest.data["sizes"])
        same = (training["device"], training["precision"]) == (device_name(), precision)
        if same and settings.get("batch_size") == run.settings.batch_size and steps:
            rates.setdefault(entry.manifest.task["id"], []).append(training["seconds"] / steps)
    of = {run.task_id: rates[run.task_id]} if run.task_id in rates else rates
    found = [rate for listed in of.values() for rate in listed]
    return Pace(median(found), len(found), tuple(of)) if found else None


def trained_parameters(run: Run, entries: Sequence[Entry]) -> int | None:
    """What the run will train, as entries of :func:`alike` of the same task and settings say."""
    wanted = (run.task_id, settings_dict(run.method_settings), run.settings.head)
    for entry in entries:
        manifest = entry.manifest
        head = manifest.run_settings.get("head")
        if (manifest.task["id"], dict(manifest.method_settings), head) == wanted:
            return int(manifest.training["trainable_parameters"])
    return None


def _planned(settings: Any, sizes: Any) -> int:
    """As :attr:`Run.planned_steps`, of an entry; 0 where it does not say."""
    steps, epochs, batch = (settings.get(k) for k in ("max_steps", "epochs", "batch_size"))
    if steps or not epochs or not batch:
        return int(steps or 0)
    return int(epochs) * -(-int(sizes.get("train", 0)) // int(batch))
