"""The searches on a report's page: every trial as a line through its settings, and as a row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from mtl.report.html import text
from mtl.report.page_figures import PANELS, left_out
from mtl.report.page_tables import Cell, number, table, word
from mtl.report.searches import Axis, Trials, Tried, Used, Value
from mtl.report.svg import WIDTH, Scale, cut, figure, polyline, words

TOP, BOTTOM, SIDE = 14, 180, 46
_DRAWN = 200
"""Trials that are drawn at most, the best ones."""


def all_searches(found: Sequence[Used]) -> str:
    """A drawing and a table per search."""
    parts = [_one(place, used) for place, used in enumerate(found[:PANELS])]
    return "".join(parts) + left_out(len(found) - PANELS, "search")


def _one(place: int, used: Used) -> str:
    trials = used.trials
    seeds = ", ".join(map(str, trials.seeds))
    title = f"{trials.method} on {trials.task}: {len(trials.tried)} trials, seeds {seeds}"
    names = ", ".join(entry.ref for entry in used.entries[:4])
    more = f" and {len(used.entries) - 4} more" if len(used.entries) > 4 else ""
    said = f"<p>Trained with what was found: {text(names + more)}.</p>"
    return f'<div class="figures">{_drawing(place, title, trials)}</div>{said}{_table(trials)}'


def _ranked(trials: Trials) -> list[Tried]:
    return sorted(trials.tried, key=lambda item: (item.dev is None, -(item.dev or 0), item.number))


def _drawing(place: int, title: str, trials: Trials) -> str:
    """Parallel coordinates: an upright axis per setting, dev the last one, the best line thick."""
    scored = trials.scored
    last = len(trials.axes)
    step = (WIDTH - 2 * SIDE) / last
    dev = Scale(min(scored), max(scored), BOTTOM, TOP)
    shapes = []
    for at in range(last + 1):
        x = SIDE + at * step
        shapes.append(f'<path class="grid" d="M{x:.1f} {TOP}V{BOTTOM}"/>')
        axis = None if at == last else trials.axes[at]
        label = trials.by if axis is None else f"{axis.key}{' (log)' * axis.log}"
        shapes.append(words(x, BOTTOM + 16, cut(label, 14), "tick", "middle"))
    for item in reversed(_ranked(trials)[:_DRAWN]):  # the best one over the others
        if item.number == 0:
            continue
        line = [
            (SIDE + at * step, _height(axis, item.values.get(axis.key)))
            for at, axis in enumerate(trials.axes)
        ]
        if item.dev is not None:
            line.append((SIDE + last * step, dev(item.dev)))
        best = item.number == trials.best.number
        style = "line s1" if best else "thin s0" if item.dev is not None else "thin s5"
        known = [(x, y) for x, y in line if y is not None]
        if len(known) == len(line):
            line_of = polyline(known, style, "" if item.dev is not None else "4 3")
            shapes.append(f"<g><title>{text(_told(item))}</title>{line_of}</g>")
    for at, axis in enumerate(trials.axes):
        for y, label in _marks(axis):
            shapes.append(words(SIDE + at * step - 3, y + 3, cut(label, 7), "tick", "end"))
    x = SIDE + last * step
    plain = trials.tried[0]
    if plain.number == 0 and plain.dev is not None:
        y = dev(plain.dev)
        shapes.append(f'<path class="mark s5" d="M{x + 1:.1f} {y:.1f}l8 4v-8z"/>')
    for value in dict.fromkeys((min(scored), max(scored))):
        shapes.append(words(x + 10, dev(value) + 3, f"{value:.4f}", "tick"))
    keys = ["thick: the best; dashed: given up or failed; mark at the right: without the search"]
    if len(trials.tried) > _DRAWN:
        keys.append(f"the {_DRAWN} best of {len(trials.tried)} trials are drawn")
    said = "; ".join(_told(item) for item in _ranked(trials)[:5])
    return figure(f"search{place}", title, said, BOTTOM + 24, shapes, keys)


def _told(item: Tried) -> str:
    values = " ".join(f"{key}={_short(value)}" for key, value in item.values.items())
    return f"trial {item.number}: {values}: {item.state if item.dev is None else f'{item.dev:.4f}'}"


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _height(axis: Axis, value: Value) -> float | None:
    """Where a value stands on its axis; None where it is none of it."""
    if axis.choices:
        if value not in axis.choices:
            return None
        return Scale(0, len(axis.choices) - 1, BOTTOM, TOP)(axis.choices.index(value))
    if isinstance(value, str | None):
        return None
    log = axis.log and axis.low > 0
    return Scale(axis.low, axis.high, BOTTOM, TOP, log)(float(value))


def _marks(axis: Axis) -> list[tuple[float, str]]:
    """Heights and words on an axis, those that would stand on another one left out."""
    values: list[Value] = list(axis.choices) or [axis.low, axis.high]
    found = [(y, _short(value)) for value in values if (y := _height(axis, value)) is not None]
    near = {y for (before, _), (y, _) in pairwise(found) if abs(before - y) < 10}
    return [(y, label) for y, label in found if y not in near]


def _table(trials: Trials) -> str:
    heads = ["trial", *(axis.key for axis in trials.axes), trials.by, "± se", "state", "steps"]
    rows = [
        [
            word(f"{item.number}{' (without the search)' if not item.number else ''}"),
            *(_value(item.values.get(axis.key)) for axis in trials.axes),
            number(item.dev, ".4f"),
            number(item.stderr, ".4f"),
            word("best" if item.number == trials.best.number else item.state),
            number(item.steps),
        ]
        for item in _ranked(trials)
    ]
    return table(f"Trials of {trials.method} on {trials.task}, best first", heads, rows)


def _value(value: Value) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return word("" if value is None else value)
    return number(value, ".3g" if isinstance(value, float) else "d")
