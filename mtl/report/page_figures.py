"""The drawings of a report's page: seeds as dots, results over trainable parameters, dev curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl.report.dev_curves import known_labels, places_of
from mtl.report.html import text
from mtl.report.svg import (
    DASHES,
    SERIES,
    WIDTH,
    Scale,
    across,
    cut,
    figure,
    mark,
    polyline,
    sample,
    scale_of,
    short,
    upright,
    words,
)
from mtl.report.tables_text import name_of
from mtl.words import counted, printable
from mtl.zoo.settings import settings_text

if TYPE_CHECKING:
    from mtl.report.dev_curves import Line
    from mtl.report.suite import SuiteTable
    from mtl.report.tables import Row

PANELS = 24
"""Drawings of one sort that a page has at most; what is left out is said, and in the tables."""
LINES = 20
"""Rows of one drawing of seeds."""
CURVES = 10
"""Lines of one drawing of dev curves; each with so many seeds and points at most:"""
THIN, POINTS = 5, 100


def labelled(row: Row) -> str:
    """A row's method and what sets it apart, on one line."""
    return printable(f"{name_of(row)} {own_settings(row)}".rstrip())


def own_settings(row: Row) -> str:
    """What sets a row apart but its number of training rows, which a page says beside it."""
    return settings_text({k: v for k, v in row.settings.items() if k != "train rows"})


def panels(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows with a result by what they are compared on: one task, metric, base, number of rows."""
    several = len({row.base for row in rows}) > 1
    metrics: dict[str, set[str]] = {}
    for row in rows:
        metrics.setdefault(row.task, set()).add(row.metric)
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.scores:
            trained = "" if row.train is None else f", {row.train:,} training rows"
            trained += f", {row.metric}" if len(metrics[row.task]) > 1 else ""
            title = f"{row.task}{trained}{f', {row.base}' if several else ''}"
            found.setdefault(printable(title), []).append(row)
    return found


def left_out(number: int, what: str) -> str:
    """A line on what is too much for a page; nothing where that is nothing."""
    if number <= 0:
        return ""
    return f"<p>{counted(number, what)} more: see the table, or narrow the report down.</p>"


def grid(drawn: Sequence[str], beyond: int) -> str:
    """Drawings beside each other, and how many there are ``beyond`` them."""
    if not drawn:
        return "<p>Nothing to draw: single runs, which the table shows.</p>"
    return f'<div class="figures">{"".join(drawn)}</div>{left_out(beyond, "drawing")}'


def all_dots(rows: Sequence[Row]) -> str:
    """A drawing per task: every seed of every row a dot."""
    found = {
        title: own
        for title, own in panels(rows).items()
        if sum(len(row.scores) for row in own) > 1  # one mark alone says no more than the table
    }
    drawn = [_dots(n, title, own) for n, (title, own) in enumerate([*found.items()][:PANELS])]
    return grid(drawn, len(found) - PANELS)


def _dots(number: int, title: str, rows: Sequence[Row]) -> str:
    best = sorted(rows, key=lambda row: (row.kind != "adapter", -_mean(row)))
    shown = best[:LINES]
    ends = [
        end
        for row in shown
        if row.test is not None
        for end in (*row.scores.values(), row.test.low, row.test.high)
        if end is not None
    ]
    scale = scale_of(ends, 8, WIDTH - 8)
    bottom = 30 * len(shown) + 4
    shapes = [across(scale, 0, bottom, f"{rows[0].metric} on test")]
    for place, row in enumerate(shown):
        shapes.append(_strip(scale, 30 * place, row))
    said = "; ".join(f"{labelled(row)}: {_mean(row):.4f}, {_seeds(row)}" for row in shown)
    more = len(rows) - len(shown)
    keys = [f"{counted(more, 'row')} more, with lower means: see the table"] if more else []
    return figure(f"dots{number}", title, said, bottom + 32, shapes, keys)


def _strip(scale: Scale, top: float, row: Row) -> str:
    """One row: its name, its mean, the interval as a bar, and its seeds."""
    y = top + 21
    label = labelled(row)
    parts = [
        f"<g><title>{text(f'{label}: {_seeds(row)}')}</title>",
        words(0, top + 12, cut(label, 48)),
        words(WIDTH, top + 12, f"{_mean(row):.4f}", "", "end"),
    ]
    if row.test is not None and row.test.low is not None and row.test.high is not None:
        low, high = scale(row.test.low), scale(row.test.high)
        parts.append(f'<path class="interval" d="M{low:.1f} {y}H{high:.1f}"/>')
    parts += [mark(row.kind, scale(value), y) for value in row.scores.values()]
    middle = scale(_mean(row))
    parts.append(f'<path class="middle" d="M{middle:.1f} {y - 6}v12"/></g>')
    return "".join(parts)


def _mean(row: Row) -> float:
    return row.test.mean if row.test is not None else 0.0


def _seeds(row: Row) -> str:
    return ", ".join(f"seed {seed} {value:.4f}" for seed, value in row.scores.items())


@dataclass(frozen=True)
class Point:
    """A result and what it trains."""

    label: str
    kind: str
    parameters: float
    mean: float
    low: float | None = None
    high: float | None = None


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other is as good as with as few parameters, by parameters; no controls.

    Of points that are equal in both, all are in it.
    """
    real = [point for point in points if point.kind != "control"]

    def beaten(point: Point) -> bool:
        return any(
            other.parameters <= point.parameters
            and other.mean >= point.mean
            and (other.parameters, other.mean) != (point.parameters, point.mean)
            for other in real
        )

    return sorted((p for p in real if not beaten(p)), key=lambda p: (p.parameters, p.label))


def all_costs(rows: Sequence[Row], suites: Sequence[SuiteTable]) -> str:
    """A drawing per suite, of averages, and per task: results over trainable parameters."""
    found: dict[str, list[Point]] = {}
    for table in suites:
        points = [
            Point(
                printable(f"{row.method} {settings_text(row.settings)}".rstrip()),
                row.kind,
                row.trainable,
                row.average.mean,
                row.average.low,
                row.average.high,
            )
            for row in table.rows
            if row.average is not None
        ]
        if len(points) > 1:
            found[printable(f"average of {table.suite}, {table.base}")] = points
    for title, own in panels(rows).items():
        found[title] = [
            Point(labelled(r), r.kind, r.parameters, r.test.mean, r.test.low, r.test.high)
            for r in own
            if r.test is not None and len(own) > 1
        ]
    found = {title: points for title, points in found.items() if points}
    drawn = [_costs(n, title, own) for n, (title, own) in enumerate([*found.items()][:PANELS])]
    return grid(drawn, len(found) - PANELS)


def _costs(number: int, title: str, points: Sequence[Point]) -> str:
    across_, left, bottom = WIDTH - 8, 44, 200
    x = scale_of((point.parameters for point in points), left + 6, across_, log=True)
    ends = (end for p in points for end in (p.mean, p.low, p.high) if end is not None)
    y = scale_of(ends, bottom, 8)
    best = front(points)
    shapes = [
        upright(y, left, across_),
        across(x, 8, bottom, "trained parameters, log scale"),
        _steps(x, y, best),
    ]
    for point in points:
        at, high = x(point.parameters), y(point.mean)
        shapes.append(
            f"<g><title>{text(f'{point.label}: {point.mean:.4f}, {point.parameters:,.0f}')}</title>"
        )
        if point.low is not None and point.high is not None:
            span = f"M{at:.1f} {y(point.low):.1f}V{y(point.high):.1f}"
            shapes.append(f'<path class="error" d="{span}"/>')
        shapes.append(f"{mark(point.kind, at, high, front=point in best)}</g>")
    keys = []
    for place, point in enumerate(best[:LINES], start=1):
        # beside the ring: left of what stands at the right edge
        right = x(point.parameters) < WIDTH - 40
        at = x(point.parameters) + (10 if right else -10)
        shapes.append(words(at, y(point.mean) + 4, place, "number", "start" if right else "end"))
        cost = f"{short(point.parameters)} parameters"
        keys.append(f"<b>{place}</b> {text(point.label)}: {point.mean:.4f}, {cost}")
    said = "Pareto front: " + "; ".join(
        f"{p.label} {p.mean:.4f} with {p.parameters:,.0f} parameters" for p in best
    )
    return figure(f"costs{number}", title, said, bottom + 32, shapes, keys)


def _steps(x: Scale, y: Scale, best: Sequence[Point]) -> str:
    """The front as stairs: what is reached with at most so many parameters."""
    points: list[tuple[float, float]] = []
    for point in best:
        at, high = x(point.parameters), y(point.mean)
        if points:
            points.append((at, points[-1][1]))
        points.append((at, high))
    if points:
        points.append((x.end, points[-1][1]))
    return polyline(points, "front")


def all_curves(found: Mapping[tuple[str, str], Sequence[Line]]) -> str:
    """A drawing per task: dev over the steps of training."""
    known = known_labels(found)
    drawn = [
        _curve(number, printable(f"{task}: dev {metric}"), lines, known)
        for number, ((task, metric), lines) in enumerate([*found.items()][:PANELS])
    ]
    return grid(drawn, len(found) - PANELS)


def _curve(number: int, title: str, lines: Sequence[Line], known: Mapping[str, int]) -> str:
    shown = lines[:CURVES]
    right, left, bottom = WIDTH - 8, 44, 180
    every = [point for line in shown for points in line.seeds.values() for point in points]
    x = scale_of((step for step, _ in every), left + 4, right)
    y = scale_of((value for _, value in every), bottom, 8)
    shapes = [upright(y, left, right), across(x, 8, bottom, "step")]
    keys, said = [], []
    for line, place in places_of(shown, known, SERIES * len(DASHES)):
        colour, dash = f"s{place % SERIES}", DASHES[place // SERIES % len(DASHES)]
        for seed, points in [*line.seeds.items()][:THIN]:
            if len(line.seeds) > 1:
                placed = ((x(step), y(value)) for step, value in fewer(points))
                shapes.append(polyline([*placed], f"thin {colour}", dash))
            kept = dict(points).get(line.selected[seed])
            if kept is not None:
                at = f'cx="{x(line.selected[seed]):.1f}" cy="{y(kept):.1f}"'
                shapes.append(f'<circle class="kept {colour}" {at} r="2.5"/>')
        mean = line.mean()
        if mean:
            placed = ((x(step), y(value)) for step, value in fewer(mean))
            shapes.append(polyline([*placed], f"line {colour}", dash))
            said.append(f"{line.label}: {mean[-1][1]:.4f} at step {mean[-1][0]}")
        keys.append(f"{sample(place)} {text(line.label)}, {counted(len(line.seeds), 'seed')}")
    if len(lines) > len(shown):
        keys.append(f"{counted(len(lines) - len(shown), 'line')} more are not drawn")
    return figure(f"curves{number}", title, "; ".join(said), bottom + 32, shapes, keys)


def fewer(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Every so many of ``points``, and the last one, so that there are :data:`POINTS` about."""
    found = list(points)
    step = -(-len(found) // POINTS)
    return [*found[:-1:step], found[-1]] if step > 1 else found
