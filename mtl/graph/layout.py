"""Where nodes stand and how edges look: what all drawings of the graph share."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True)
class Stroke:
    """How one edge is drawn.

    Attributes:
        finding: what speaks for it.
        strength: from 0 to 1, relative to the strongest of its kind (and, for scores, of its
            target): units differ, so only edges of one kind compare.
        colour: by sign where the kind has one.
    """

    source: str
    target: str
    finding: dict[str, Any]
    strength: float
    colour: str


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
        colour = NEUTRAL
        if item["kind"] in SIGNED:
            colour = POSITIVE if item["value"] >= 0 else NEGATIVE
        drawn.append(Stroke(source, goal, item, float(min(1.0, strength)), colour))
    return sorted(drawn, key=lambda s: (s.strength, s.target, s.source))


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
