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
        beside: whether they went side by side: their seconds are then shares of their groups'.
    """

    seconds: float
    runs: int
    tasks: tuple[str, ...]
    beside: bool


def trained_as(entries: Sequence[Entry], *, beside: bool) -> tuple[list[Entry], bool]:
    """Of finished runs those that went side by side, or alone, as ``beside`` says; else the others.

    Returns:
        Those, and whether they went side by side.
    """
    ways: dict[bool, list[Entry]] = {True: [], False: []}
    for entry in entries:
        ways["side_by_side" in entry.manifest.training].append(entry)
    way = beside if ways[beside] else not beside
    return ways[way], way


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


def pace(run: Run, entries: Sequence[Entry], *, beside: bool = False) -> Pace | None:
    """How fast entries of :func:`alike` were on this device, with this batch; None if none was.

    Args:
        beside: whether the run goes side by side; those that did are then asked first, else last.
    """
    precision = resolve_precision(run.settings.precision)
    rates: dict[str, float] = {}
    fitting: dict[bool, list[Entry]] = {True: [], False: []}
    """Of the run's own task, and of others."""
    for entry in entries:
        training, settings = entry.manifest.training, entry.manifest.run_settings
        steps = _planned(settings, entry.manifest.data["sizes"])
        same = (training["device"], training["precision"]) == (device_name(), precision)
        if same and settings.get("batch_size") == run.settings.batch_size and steps:
            rates[entry.ref] = training["seconds"] / steps
            fitting[entry.manifest.task["id"] == run.task_id].append(entry)
    found, way = trained_as(fitting[True] or fitting[False], beside=beside)
    if not found:
        return None
    tasks = dict.fromkeys(entry.manifest.task["id"] for entry in found)
    return Pace(median(rates[entry.ref] for entry in found), len(found), tuple(tasks), way)


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
