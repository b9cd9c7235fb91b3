"""Finished runs that differ in settings: what sets each apart, and the best on dev."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl.report.picking import best_by_dev, dev_of
from mtl.runs.running import apart
from mtl.words import counted
from mtl.zoo.settings import settings_text

if TYPE_CHECKING:
    from mtl.runs import Report
    from mtl.zoo import Entry


def best_on_dev(reports: Sequence[Report]) -> tuple[set[int], list[str]]:
    """The runs of the variant of each task with the best mean on dev, and a line for each.

    A variant is what differs in its seed only. A task with one variant has no best one; nor has one
    whose variants were judged on other dev rows, or have no score there: the line says so.
    """
    found: dict[str, dict[tuple[str, str], list[int]]] = {}
    settings = apart([report.run for report in reports])
    for place, (report, own) in enumerate(zip(reports, settings, strict=True)):
        key = (report.run.method, settings_text(own))
        found.setdefault(report.run.task_id, {}).setdefault(key, []).append(place)
    best: set[int] = set()
    lines = []
    for task, variants in found.items():
        if len(variants) < 2:
            continue
        entries = [[reports[place].entry for place in places] for places in variants.values()]
        scores = [[dev_of(entry) for entry in listed if entry is not None] for listed in entries]
        chosen = best_by_dev(scores)
        if chosen is None:
            lines.append(
                f"{task}: none of {counted(len(variants), 'variant')} is called the best on dev: "
                "one has no score there, or dev is not the same rows for all."
            )
            continue
        (method, text), places = list(variants.items())[chosen]
        best |= set(places)
        values = [score.value for score in scores[chosen] if score.value is not None]
        of = f", mean of {counted(len(values), 'seed')}" if len(values) > 1 else ""
        lines.append(
            f"{task}: best on dev of {counted(len(variants), 'variant')}: {method}"
            f"{f' {text}' if text else ''}, {sum(values) / len(values):.4f}{of}"
            f" ({_surest(entries[chosen])})"
        )
    return best, lines


def _surest(entries: Sequence[Entry | None]) -> str:
    """The name of the run that is the best on dev, to paste into the next command."""
    scored = [(dev_of(entry).value, entry.ref) for entry in entries if entry is not None]
    return max((value, ref) for value, ref in scored if value is not None)[1]
