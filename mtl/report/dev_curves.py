"""Dev over the steps of training: what the runs' ``events.jsonl`` tell, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mtl.engine.folder import RunFolder
from mtl.errors import RequestError
from mtl.files import write_bytes
from mtl.report.heatmap import new_figure, png_of
from mtl.report.tables import group_of, settings_apart
from mtl.report.tables_text import method_name
from mtl.words import counted, printable
from mtl.zoo.settings import settings_text

if TYPE_CHECKING:
    from mtl.zoo import Entry

PANELS = 24
"""More of them no page shows."""
_COLOURS = ("#1f5fa8", "#c8553d", "#3a7d44", "#8a5fbf", "#b8860b", "#4a4a4a", "#0f8b8d", "#c2185b")
_STYLES = ("-", "--", ":")
LOOKS = len(_COLOURS) * len(_STYLES)
"""Lines that can be told apart."""


@dataclass
class Line:
    """Runs that differ in their seed only, on one task.

    Attributes:
        seeds: seed → (step, value) of every evaluation.
        selected: seed → the step whose state was kept.
    """

    label: str
    seeds: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    selected: dict[int, int] = field(default_factory=dict)

    def mean(self) -> list[tuple[int, float]]:
        """Over the seeds, at the steps at which all of them were evaluated."""
        by_seed = [dict(points) for points in self.seeds.values()]
        steps = set.intersection(*(set(points) for points in by_seed))
        return [(step, fmean(points[step] for points in by_seed)) for step in sorted(steps)]


def dev_curves(
    entries: Sequence[Entry], runs: Path
) -> tuple[dict[tuple[str, str], list[Line]], list[str]]:
    """(task, metric) → its lines; and the references of runs whose events are not in ``runs``."""
    found: dict[tuple[str, str], dict[Any, Line]] = {}
    lost = []
    groups = {id(entry): group_of(entry) for entry in entries}
    apart = _labels(entries)
    for entry in entries:
        manifest = entry.manifest
        events = RunFolder(runs / manifest.runhash).read_events()
        if not events:
            lost.append(entry.ref)
            continue
        joint = manifest.kind == "joint"
        parts: Sequence[Mapping[str, Any]] = manifest.task["tasks"] if joint else [manifest.task]
        for part in parts:
            name = f"{part['id']}/{part['headline']}" if joint else part["headline"]
            points = [
                (event["step"], float(value))
                for event in events
                if isinstance(value := event.get("metrics", {}).get(name), int | float)
            ]
            if not points:  # a task of a joint run that does not select is not evaluated
                continue
            panel = found.setdefault((part["id"], part["headline"]), {})
            line = panel.setdefault(groups[id(entry)], Line(apart[id(entry)]))
            line.seeds[manifest.seed] = points
            line.selected[manifest.seed] = int(manifest.training["best_step"])
    return {key: list(lines.values()) for key, lines in sorted(found.items())}, lost


def _labels(entries: Sequence[Entry]) -> dict[int, str]:
    """Entry → its method, number of sources, and the settings in which others of those differ."""
    apart = settings_apart([entry.manifest for entry in entries])
    found = {}
    for entry, own in zip(entries, apart, strict=True):
        manifest = entry.manifest
        name = method_name(manifest.method, len(manifest.parents), manifest.control)
        more = settings_text(dict(sorted(own.items())[:4]))
        found[id(entry)] = printable(f"{name} {more}".strip())
    return found


def known_labels(curves: Mapping[tuple[str, str], Sequence[Line]]) -> dict[str, int]:
    """Every label of all panels, and the place of its colour."""
    labels = {line.label for lines in curves.values() for line in lines}
    return {label: place for place, label in enumerate(sorted(labels))}


def places_of(
    lines: Sequence[Line], known: Mapping[str, int], looks: int = LOOKS
) -> list[tuple[Line, int]]:
    """The lines of a panel by their labels, each with the place of its colour.

    A label has one colour in all panels; a second line of the same label the next one that is free.
    Of more labels than there are colours and styles, those of each panel are counted by themselves.
    """
    if len(known) > looks:
        return [(line, place) for place, line in enumerate(lines)]
    taken: dict[int, Line] = {}
    for line in sorted(lines, key=lambda line: line.label):
        place = known[line.label]
        while place in taken:
            place += len(known)
        taken[place] = line
    return [(line, place) for place, line in taken.items()]


def draw_dev_curves(curves: Mapping[tuple[str, str], Sequence[Line]], path: Path) -> None:
    """Draw a panel per task, a line per method and settings, thin ones for its seeds.

    A dot is the state that was selected.

    Raises:
        RequestError: nothing, or too much, to be drawn; matplotlib is not installed.
    """
    if len(curves) > PANELS:
        raise RequestError(
            f"--curves: {len(curves)} tasks are more than the {PANELS} that a picture shows; "
            "choose some with --suite or --target."
        )
    across = min(3, len(curves))
    down = -(-len(curves) // across)
    figure = new_figure(5.2 * across, 3.6 * down, 110)
    told, known = [], known_labels(curves)
    for number, ((task, metric), lines) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(down, across, number)
        for line, place in places_of(lines, known):
            colour = _COLOURS[place % len(_COLOURS)]
            style = _STYLES[place // len(_COLOURS) % len(_STYLES)]
            for seed, points in line.seeds.items():
                axes.plot(*zip(*points, strict=True), color=colour, alpha=0.35, lw=0.8, ls=style)
                kept = dict(points).get(line.selected[seed])
                if kept is not None:
                    axes.plot([line.selected[seed]], [kept], "o", color=colour, ms=3)
            if mean := line.mean():
                label = f"{line.label} ({counted(len(line.seeds), 'seed')})"
                axes.plot(*zip(*mean, strict=True), color=colour, lw=1.8, ls=style, label=label)
                told.append(f"{task} {label}: dev {metric} {mean[-1][1]:.4f} at {mean[-1][0]}")
        axes.set_title(printable(task), fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylabel(printable(f"dev {metric}"), fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=6)
    write_bytes(path, png_of(figure, "; ".join(told)))
