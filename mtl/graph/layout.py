"""Where nodes stand and how edges look: what all drawings of the graph share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.graph.model import ORDER, edge_value

if TYPE_CHECKING:
    import networkx as nx

POSITIVE, NEGATIVE, NEUTRAL = "#2166ac", "#b2182b", "#6a6a6a"
"""Transfer that helps, transfer that hurts, and evidence without a sign (reliance, scores)."""
SIGNED = ("measured", "attribution")
CROWD = 60
"""Tasks from which on names are not written into a drawing."""
MEANING = {
    "measured": "measured transfer: test metric with that source alone, minus the own adapter's",
    "attribution": "attribution: what a source contributes to a trained composition",
    "reliance": "learned reliance: a source's share of what a composition weighs",
    "predicted": "predicted: a score without training, ranked within each target",
}
"""What evidence of each kind says, for legends."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Stroke:
    """How one edge is drawn.

    Attributes:
        finding: what speaks for it.
        strength: from 0 to 1, relative to the strongest of its kind (and, for scores, of its
            target): units differ, so only edges of one kind compare.
        colour: by sign where the kind has one.
        sure: False where the 95 % interval includes zero; drawn pale.
    """

    source: str
    target: str
    finding: dict[str, Any]
    strength: float
    colour: str
    sure: bool = True


def strokes(
    graph: nx.DiGraph,
    *,
    kinds: Sequence[str] = ORDER,
    score: str | None = None,
    target: str | None = None,
) -> list[Stroke]:
    """One stroke per edge that has evidence of ``kinds``, the weakest first.

    Args:
        score: the score that stands for predictions; None for the one that most edges have.
        target: only edges into this task.
    """
    score = score or _commonest(graph)
    found = []
    for source, goal, data in graph.edges(data=True):
        if target not in (None, goal):
            continue
        for kind in kinds:
            item = edge_value(data, (kind,), score if kind == "predicted" else None)
            if item is not None:
                found.append((source, goal, item))
                break
    scale = _scales(found)
    drawn = []
    for source, goal, item in found:
        low, high = scale[_group(goal, item)]
        if item["kind"] == "predicted":
            strength = (item["value"] - low) / (high - low) if high > low else 1.0
        else:
            strength = abs(item["value"]) / max(abs(low), abs(high), 1e-12)
        colour, sure = NEUTRAL, True
        if item["kind"] in SIGNED:
            colour = POSITIVE if item["value"] >= 0 else NEGATIVE
            low, high = item["low"], item["high"]
            sure = low is None or high is None or not low <= 0 <= high
        drawn.append(Stroke(source, goal, item, float(min(1.0, strength)), colour, sure))
    return sorted(drawn, key=lambda s: (s.strength, s.target, s.source))


def thickness(stroke: Stroke) -> float:
    """From 0 to 1; what is only predicted or only weighed never outshines what was measured."""
    return stroke.strength * (1.0 if stroke.finding["kind"] in SIGNED else 0.35)


def positions(
    graph: nx.DiGraph, drawn: Sequence[Stroke], seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Task → (x, y) in the unit square, by networkx' spring layout; strong edges pull.

    The same graph gives the same picture. Beyond 200 tasks only the strong half of the edges pulls
    and the number of steps is bounded, so that a thousand tasks take seconds.
    """
    import networkx as nx

    plain = nx.Graph()
    plain.add_nodes_from(sorted(graph))
    count = plain.number_of_nodes()
    pulling = drawn if count <= 200 else drawn[len(drawn) // 2 :]
    for stroke in pulling:
        if stroke.source != stroke.target:
            known = plain.get_edge_data(stroke.source, stroke.target, {"weight": 0.0})
            weight = max(known["weight"], 0.1 + stroke.strength)
            plain.add_edge(stroke.source, stroke.target, weight=weight)
    if count == 1:
        return {next(iter(plain)): (0.5, 0.5)}
    if not count:
        return {}
    if count <= 200:
        # circular first: a spring from random places can leave nodes on top of one another
        start = nx.circular_layout(plain)
        placed = nx.spring_layout(plain, pos=start, seed=seed, iterations=100, k=2 / count**0.5)
    else:
        # newer versions take another, slower method for large graphs unless they are told
        known = signature(nx.spring_layout).parameters
        force = {"method": "force"} if "method" in known else {}
        placed = nx.spring_layout(plain, seed=seed, iterations=30, **force)
    points = np.array([placed[task] for task in plain], dtype=np.float64)
    low, high = points.min(0), points.max(0)
    points = (points - low) / np.where(high > low, high - low, 1.0)
    return {task: (float(x), float(y)) for task, (x, y) in zip(plain, points, strict=True)}


def arrow_heads(
    drawn: Sequence[Stroke], place: Mapping[str, Point], gap: Mapping[str, float]
) -> list[Point]:
    """Where arrows end, ``gap`` pixels before the middle of their targets, and where loops are."""
    found = []
    for stroke in drawn:
        (x, y), (from_x, from_y) = place[stroke.target], place[stroke.source]
        if stroke.source == stroke.target:  # a loop hangs below its circle
            found += [(x + side, y + gap[stroke.target] + 6) for side in (-12, 0, 12)]
        else:
            away = gap[stroke.target] / max(math.hypot(from_x - x, from_y - y), 1e-9)
            found.append((x + (from_x - x) * away, y + (from_y - y) * away))
    return found


def short_names(tasks: Iterable[str]) -> dict[str, str]:
    """Task → what it is called in a drawing: without its suite where all are of one suite."""
    known = list(tasks)
    suites = {task.rpartition("/")[0] for task in known}
    names = {task: task.rpartition("/")[2] if len(suites) == 1 else task for task in known}
    return names if len(set(names.values())) == len(known) else {task: task for task in known}


def label_places(
    points: Sequence[Point],
    radii: Sequence[float],
    widths: Sequence[float],
    height: float,
    area: Point,
    heads: Sequence[Point] = (),
) -> list[Point]:
    """Centres of labels beside their nodes, such that as little as possible lies on one another.

    Each label in turn takes the place around its node (above, below, beside, diagonally; then
    farther out) that covers least of the other nodes and of the labels already there, inside the
    area.

    Args:
        points, radii: of the nodes, in pixels; y may count up or down.
        widths, height: of the labels, in pixels.
        area: width and height of the drawing.
        heads: where arrows end; a name should not hide them.
    """
    nodes = np.array(
        [[x - r, y - r, x + r, y + r] for (x, y), r in zip(points, radii, strict=True)]
    )
    ends = np.array([[x - 6, y - 6, x + 6, y + 6] for x, y in heads]).reshape(-1, 4)
    placed: dict[int, Point] = {}
    boxes: list[list[float]] = []
    for number in sorted(range(len(points)), key=lambda n: (points[n][1], points[n][0])):
        (x, y), r, half = points[number], radii[number] + 3, widths[number] / 2
        best: tuple[float, Point, list[float]] | None = None
        others = np.delete(nodes, number, axis=0)
        for rank, (dx, dy) in enumerate(_AROUND):
            far = 1.0 if rank < 8 else 2.2
            at = (x + dx * (r * far + half), y + dy * (r * far + height / 2))
            box = [at[0] - half, at[1] - height / 2, at[0] + half, at[1] + height / 2]
            covered = 2 * _overlap(box, np.array(boxes).reshape(-1, 4)) + _overlap(box, others)
            covered += 0.1 * _overlap(box, ends)
            inside = _overlap(box, np.array([[0.0, 0.0, *area]]))
            cost = covered + 4 * (2 * half * height - inside) + 0.5 * rank
            if best is None or cost < best[0]:
                best = (cost, at, box)
        assert best is not None
        placed[number] = best[1]
        boxes.append(best[2])
    return [placed[number] for number in range(len(points))]


_NEAR = [(0, -1), (0, 1), (1, 0), (-1, 0), (0.8, -0.8), (-0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
_AROUND = [*_NEAR, *_NEAR]


def _overlap(box: Sequence[float], others: np.ndarray) -> float:
    """Total area that ``box`` shares with ``others`` (N,4), all as left, top, right, bottom."""
    wide = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    high = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    return float((np.clip(wide, 0, None) * np.clip(high, 0, None)).sum())


def _commonest(graph: nx.DiGraph) -> str | None:
    counts: dict[str, int] = {}
    for _, _, data in graph.edges(data=True):
        for item in data["evidence"]:
            if item["kind"] == "predicted":
                counts[item["method"]] = counts.get(item["method"], 0) + 1
    # logme where it is as common as any
    return max(sorted(counts), key=lambda n: (counts[n], n == "logme"), default=None)


def _group(target: str, item: dict[str, Any]) -> tuple[str, str]:
    # scores of one target compare; measured differences compare everywhere
    return (item["kind"], target if item["kind"] == "predicted" else "")


def _scales(found: Sequence[tuple[str, str, dict[str, Any]]]) -> dict[tuple[str, str], Any]:
    scale: dict[tuple[str, str], tuple[float, float]] = {}
    for _, target, item in found:
        key = _group(target, item)
        low, high = scale.get(key, (item["value"], item["value"]))
        scale[key] = (min(low, item["value"]), max(high, item["value"]))
    return scale
