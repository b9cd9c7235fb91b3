"""The graph as one HTML file: inline SVG, a little script, no server, no network.

Every text that comes from a zoo is escaped where it stands in HTML or SVG; what the script shows
travels as JSON in which ``<``, ``>`` and ``&`` are escaped; the script only ever sets text. A
Content-Security-Policy in the file forbids every request.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.files import write_text
from mtl.graph.layout import (
    CROWD,
    MEANING,
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    SIGNED,
    Stroke,
    arrow_heads,
    label_places,
    positions,
    short_names,
    strokes,
    thickness,
)
from mtl.graph.model import ORDER, method_text, negative_edges
from mtl.graph.table import describe_negative
from mtl.report.html import text as _text
from mtl.words import counted, printable

if TYPE_CHECKING:
    import networkx as nx

WIDTH, HEIGHT, MARGIN = 1100, 720, 60
SHOWN = 500
"""Edges that a crowd shows at first; the slider brings the weaker ones."""
LETTER = 6.8
"""Pixels per letter of a name, a little more than most fonts need at 12 pixels."""
TEMPLATE = Path(__file__).with_name("page.html")


def write_page(
    graph: nx.DiGraph,
    path: Path,
    *,
    kinds: Sequence[str] = ORDER,
    score: str | None = None,
    target: str | None = None,
) -> dict[str, int]:
    """Write the page, atomically; return how many nodes and edges it shows.

    Args:
        kinds, score, target: as :func:`mtl.graph.layout.strokes`.

    Raises:
        RunError: the system refuses.
    """
    drawn = strokes(graph, kinds=kinds, score=score, target=target)
    write_text(path, page(graph, drawn, target))
    return {"nodes": graph.number_of_nodes(), "edges": len(drawn)}


def page(graph: nx.DiGraph, drawn: Sequence[Stroke], target: str | None = None) -> str:
    """The page as text."""
    tasks = sorted(graph)
    number = {task: index for index, task in enumerate(tasks)}
    goals = sorted({stroke.target for stroke in drawn})
    parts = {
        "title": "Source-task graph" + (f" of {_text(target)}" if target else ""),
        "summary": f"{counted(len(tasks), 'task')}, {counted(len(drawn), 'edge')}. Hover an edge "
        "or a task for numbers and provenance.",
        "legend": _legend(drawn),
        "targets": "".join(f'<option value="{_text(g)}">{_text(g)}</option>' for g in goals),
        "least": str(_least(drawn) if len(tasks) > CROWD else 0),
        "svg": _svg(graph, tasks, number, drawn),
        "negative": _negative(graph, target),
        "data": _script_json(_data(graph, tasks, number, drawn)),
    }
    template = TEMPLATE.read_text(encoding="utf-8")
    # one pass: what is put in is never searched for further marks
    return re.sub(r"@(\w+)@", lambda found: parts[found.group(1)], template)


def _least(drawn: Sequence[Stroke]) -> int:
    """The strength, in hundredths, from which on there are at most :data:`SHOWN` edges."""
    if len(drawn) <= SHOWN:
        return 0
    return min(100, math.floor(100 * drawn[-SHOWN - 1].strength) + 1)  # the weakest come first


def _script_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _svg(
    graph: nx.DiGraph, tasks: Sequence[str], number: dict[str, int], drawn: Sequence[Stroke]
) -> str:
    unit = positions(graph, drawn)
    place = {
        task: (MARGIN + x * (WIDTH - 2 * MARGIN), MARGIN + y * (HEIGHT - 2 * MARGIN))
        for task, (x, y) in unit.items()
    }
    crowd = len(tasks) > CROWD
    size = {task: _radius(graph.nodes[task]["rows"], crowd) for task in tasks}
    shape = ' class="crowd"' if crowd else ""
    lines = [
        f'<svg id="graph" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="source-task graph"{shape}>',
        "<defs>",
    ]
    head = 6 if crowd else 13
    for index, colour in enumerate((POSITIVE, NEGATIVE, NEUTRAL)):
        lines.append(
            f'<marker id="head{index}" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="{head}" '
            f'markerHeight="{head}" markerUnits="userSpaceOnUse" orient="auto">'
            f'<path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>'
        )
    lines.append("</defs>")
    heads = {POSITIVE: 0, NEGATIVE: 1, NEUTRAL: 2}
    paths = [_path(place, size, stroke) for stroke in drawn]
    for index, (stroke, path) in enumerate(zip(drawn, paths, strict=True)):
        thick = thickness(stroke)
        width = (0.4 + 2.0 * thick) if crowd else (0.8 + 5.2 * thick)
        dash = "" if stroke.finding["kind"] in SIGNED else ' stroke-dasharray="5 3"'
        pale = "" if stroke.sure else " pale"
        lines.append(
            f'<path class="edge{pale}" data-e="{index}" d="{path}" stroke="{stroke.colour}" '
            f'stroke-width="{width:.2f}"{dash} marker-end="url(#head{heads[stroke.colour]})"/>'
        )
    # wide and invisible, so that a thin edge can be met with a pointer
    for index, path in enumerate(paths):
        lines.append(f'<path class="hit" data-e="{index}" d="{path}"/>')
    names = short_names(tasks)
    labels = {task: (x, y - size[task] - 8) for task, (x, y) in place.items()}
    if not crowd:
        found = label_places(
            [place[task] for task in tasks],
            [size[task] for task in tasks],
            [LETTER * len(printable(names[task])) for task in tasks],
            14,
            (WIDTH, HEIGHT),
            arrow_heads(drawn, place, {task: size[task] + 8 for task in tasks}),
        )
        labels = dict(zip(tasks, found, strict=True))
    for task in tasks:
        (x, y), (at, middle) = place[task], labels[task]
        lines.append(
            f'<g class="node" data-n="{number[task]}"><circle cx="{x:.1f}" cy="{y:.1f}" '
            f'r="{size[task]:.1f}"/><text x="{at:.1f}" y="{middle + 4:.1f}">'
            f"{_text(names[task])}</text></g>"
        )
    return "\n".join([*lines, "</svg>"])


def _radius(rows: int, crowd: bool) -> float:
    # by orders of magnitude: 100 rows and 400,000 rows stand in one picture
    grown = math.log10(max(rows, 1)) / 6
    return 3 + 3 * grown if crowd else 8 + 12 * grown


def _path(place: dict[str, tuple[float, float]], size: dict[str, float], stroke: Stroke) -> str:
    """A curve that leaves the circles' rims; there and back are two curves, a loop is a loop."""
    (x1, y1), (x2, y2) = place[stroke.source], place[stroke.target]
    r1, r2 = size[stroke.source], size[stroke.target]
    if stroke.source == stroke.target:
        far = r1 + 26
        return (
            f"M{x1 - r1:.1f} {y1:.1f}C{x1 - far:.1f} {y1 + far:.1f} "
            f"{x1 + far:.1f} {y1 + far:.1f} {x1 + r1 + 2:.1f} {y1:.1f}"
        )
    length = math.hypot(x2 - x1, y2 - y1) or 1.0
    bend = min(0.12 * length, 40.0)
    cx = (x1 + x2) / 2 - (y2 - y1) / length * bend
    cy = (y1 + y2) / 2 + (x2 - x1) / length * bend
    sx, sy = _towards(x1, y1, cx, cy, r1)
    ex, ey = _towards(x2, y2, cx, cy, r2 + 3)
    return f"M{sx:.1f} {sy:.1f}Q{cx:.1f} {cy:.1f} {ex:.1f} {ey:.1f}"


def _towards(x: float, y: float, to_x: float, to_y: float, step: float) -> tuple[float, float]:
    length = math.hypot(to_x - x, to_y - y) or 1.0
    return x + (to_x - x) / length * step, y + (to_y - y) / length * step


def _data(
    graph: nx.DiGraph, tasks: Sequence[str], number: dict[str, int], drawn: Sequence[Stroke]
) -> dict[str, Any]:
    return {
        "nodes": [{"id": printable(task), "text": _node_text(task, graph)} for task in tasks],
        "edges": [
            {
                "source": number[stroke.source],
                "target": number[stroke.target],
                "strength": round(stroke.strength, 4),
                "text": _edge_text(stroke, graph.edges[stroke.source, stroke.target]),
            }
            for stroke in drawn
        ],
    }


def _node_text(task: str, graph: nx.DiGraph) -> str:
    node = graph.nodes[task]
    sizes = ", ".join(f"{size:,}" for size in node["sizes"]) or "unknown"
    kinds: dict[str, int] = {}
    for entry in node["entries"]:
        kinds[entry["method"]] = kinds.get(entry["method"], 0) + 1
    listed = ", ".join(f"{count} {printable(method)}" for method, count in sorted(kinds.items()))
    lines = [
        printable(task),
        f"{printable(node['kind']) or 'kind unknown'}; training rows: {sizes}",
        f"entries: {listed or 'none in this zoo'}",
    ]
    own = graph.get_edge_data(task, task)
    if own:
        lines += ["its own adapter:", *(f"  {_finding_text(item)}" for item in own["evidence"])]
    return "\n".join(lines)


def _edge_text(stroke: Stroke, data: dict[str, Any]) -> str:
    lines = [f"{printable(stroke.source)} → {printable(stroke.target)}"]
    lines += [_finding_text(item) for item in data["evidence"]]
    named: list[str] = []
    for run in stroke.finding["runs"][:3]:
        for role in ("entry", "own", "source"):
            place = run.get(role)
            if isinstance(place, dict) and place.get("ref"):
                named.append(f"  {role} {place['ref']}")
        if run.get("command"):
            named.append(f"  {run['command']}")
    if named:
        lines += ["from", *dict.fromkeys(map(printable, named))]
    return "\n".join(lines)


def _finding_text(item: dict[str, Any]) -> str:
    sign = "+" if item["kind"] in SIGNED else ""
    text = f"{item['kind']} ({printable(method_text(item))}): {item['value']:{sign}.4f}"
    if item["low"] is not None and item["high"] is not None:
        text += f" [{item['low']:+.4f}, {item['high']:+.4f}] {item['interval']}"
    if item["n"]:
        text += f", n = {item['n']}"
    if item["seeds"]:
        text += f", seeds {' '.join(map(str, item['seeds']))}"
    if item["layers"]:
        text += "\n  by layer: " + ", ".join(
            f"{printable(layer)} {value:.3f}" for layer, value in item["layers"].items()
        )
    return text


def _legend(drawn: Sequence[Stroke]) -> str:
    """What colours, widths, shapes and words mean; only what is there."""
    kinds = {stroke.finding["kind"] for stroke in drawn}
    methods = sorted({s.finding["method"] for s in drawn if s.finding["kind"] == "predicted"})

    def swatch(look: str, text: str) -> str:
        return f'<span class="key"><span class="swatch" style="{look}"></span>{text}</span>'

    parts = []
    if kinds & set(SIGNED):
        parts.append(swatch(f"border-color:{POSITIVE}", "helps"))
        parts.append(swatch(f"border-color:{NEGATIVE}", "hurts"))
    if any(not stroke.sure for stroke in drawn):
        parts.append(
            swatch(f"border-color:{POSITIVE};opacity:.35", "pale: the 95 % interval includes zero")
        )
    if kinds - set(SIGNED):
        parts.append(swatch(f"border-color:{NEUTRAL};border-top-style:dashed", "has no sign"))
    parts.append("<span>wide: strong, relative to the strongest edge of its kind</span>")
    parts.append("<span>large circle: many training rows</span>")
    if any(stroke.source == stroke.target for stroke in drawn):
        parts.append("<span>loop: the target's own adapter</span>")
    said = [MEANING[kind] for kind in ORDER if kind in kinds]
    said = [
        f"{text} ({', '.join(methods)})" if text is MEANING["predicted"] else text for text in said
    ]
    return f'<div id="legend">{"".join(parts)}</div>' + "".join(
        f'<p class="meaning">{_text(text)}</p>' for text in said
    )


def _negative(graph: nx.DiGraph, target: str | None) -> str:
    hurts = negative_edges(graph, target)
    if not hurts:
        return ""
    rows = "".join(f"<tr><td>{_text(describe_negative(item))}</td></tr>" for item in hurts[:50])
    more = f"<p>and {len(hurts) - 50} more</p>" if len(hurts) > 50 else ""
    return f"<h2>Negative transfer (measured)</h2><table>{rows}</table>{more}"
