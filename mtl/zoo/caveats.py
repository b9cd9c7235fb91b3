"""Metrics of stored entries with what to think of them.

A manifest states ``{"value", "stderr", "n", "caveat"}`` for every metric
(:mod:`mtl.tasks.caveats`). Entries of before there were caveats state none; of the test split,
whose predictions they store, theirs is computed here, and nothing in them changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mtl.errors import MtlError
from mtl.tasks.caveats import caveat, without_certainty
from mtl.words import printable
from mtl.zoo.joint_shapes import joint_tasks
from mtl.zoo.names import predictions_file
from mtl.zoo.predictions import read_predictions

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry

MARK = "?"
"""Behind a value that has a caveat, in every table."""


def stated(entry: Entry, split: str, name: str) -> dict[str, Any] | None:
    """One metric of an entry, its caveat included; None where the entry has no such metric.

    Args:
        name: as in the manifest; of a joint entry ``<task id>/<metric>`` or ``average``.
    """
    found = entry.manifest.metrics.get(split, {}).get(name)
    if found is None or "caveat" in found:
        return found
    if split != "test" or found.get("value") is None:
        return without_certainty(found)
    return without_certainty({**found, "caveat": _computed(entry, name)})


def headline(entry: Entry) -> dict[str, Any] | None:
    """The headline metric on the test split (see ``Manifest.headline``), its caveat included."""
    metric, item = entry.manifest.task["headline"], entry.manifest.headline()
    for split, metrics in entry.manifest.metrics.items():
        if item is not None and metrics.get(metric) is item:
            return stated(entry, split, metric)
    return item


def caveats(entry: Entry) -> dict[str, str]:
    """``split metric`` → caveat, of every metric of an entry that has one."""
    found = {}
    for split, metrics in entry.manifest.metrics.items():
        for name in metrics:
            item = stated(entry, split, name)
            if item is not None and item.get("caveat"):
                found[f"{split} {name}"] = str(item["caveat"])
    return found


def _computed(entry: Entry, name: str) -> str | None:
    task: Mapping[str, Any] = entry.manifest.task
    file, metric = predictions_file(), name
    if entry.manifest.kind == "joint":
        sections = joint_tasks(entry.manifest)
        owner = next((task for task in sections if name.startswith(f"{task}/")), None)
        if owner is None:
            return None  # the mean over tasks: theirs stand beside it
        task, metric = sections[owner], name.removeprefix(f"{owner}/")
        file = predictions_file(task=owner)
    names = task.get("labels") or ()
    try:
        stored = read_predictions(entry.folder, file)
        return caveat(
            metric,
            stored.prediction,
            stored.label,
            names=[str(label) for label in names] if isinstance(names, list) else (),
            outputs=stored.scores.shape[1] if task.get("kind") == "classification" else None,
        )
    except (MtlError, OSError, ValueError):
        return None  # no predictions, or none that can be read: fsck names that


def value_text(item: Mapping[str, Any], form: str = ".4f") -> str:
    """``0.7312``, ``0.0000?`` with a caveat, ``–`` where there is no value."""
    value = item.get("value")
    if value is None:
        return "–"
    return f"{value:{form}}{MARK if item.get('caveat') else ''}"


def error_text(item: Mapping[str, Any]) -> str:
    """``0.7312 ± 0.0210``; ``1.0000? ± –`` where the standard error cannot be estimated."""
    error = item.get("stderr")
    return f"{value_text(item)} ± {'–' if error is None else f'{error:.4f}'}"


def footnotes(found: Iterable[tuple[str, Any]]) -> str:
    """One line per caveat of (what it is of, caveat or None), below a table; empty for none."""
    lines = dict.fromkeys(
        f"{MARK} {printable(what)}: {printable(why)}" for what, why in found if why
    )
    shown = list(lines)[:LINES]
    more = (
        f"\n{MARK} … and {len(lines) - LINES} more (--json has all)" if len(lines) > LINES else ""
    )
    return "".join(f"\n{line}" for line in shown) + more


LINES = 12
"""Caveats written out below a table."""
