"""The graph and the transfer matrix as PNG files, by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError
from mtl.files import write_bytes
from mtl.graph.layout import (
    CROWD,
    MEANING,
    NEGATIVE,
    NEUTRAL,
    POSITIVE,
    SIGNED,
    Point,
    Stroke,
    arrow_heads,
    label_places,
    positions,
    short_names,
    strokes,
    thickness,
)
from mtl.graph.model import ORDER
from mtl.typed import graph_places
from mtl.words import counted, printable

if TYPE_CHECKING:
    import networkx as nx

    from mtl.graph.matrix import Matrix

NAMED = 80
"""Rows or columns up to which a matrix has names."""
PALE = 0.3
"""Opacity of edges whose interval includes zero."""
EMPTY = "#d9d9d9"


def draw_graph(
    graph: nx.DiGraph,
    path: Path,
    *,
    kinds: Sequence[str] = ORDER,
    score: str | None = None,
    target: str | None = None,
) -> None:
    """Draw the graph: width is strength, colour is sign, pale where the interval includes zero.

    Arrows point at the target; beyond :data:`mtl.graph.layout.CROWD` tasks, strokes widen towards
    it instead and names are left out. What a target draws from its own adapter is not drawn.

    Raises:
        RequestError: matplotlib is not installed.
        RunError: the system refuses.
    """
    figure, axes = _figure(9, 6.8)
    drawn = [
        s for s in strokes(graph, kinds=kinds, score=score, target=target) if s.source != s.target
    ]
    place = positions(graph, drawn)
    axes.set_xlim(-0.07, 1.07)
    axes.set_ylim(1.07, -0.07)  # down the page, as in the HTML file
    axes.axis("off")
    crowd = len(place) > CROWD
    (_tapered if crowd else _arrows)(axes, drawn, place)
    points = np.array(list(place.values())).reshape(-1, 2)
    axes.scatter(
        points[:, 0], points[:, 1], s=6 if crowd else 90, c="white", edgecolors="#333", zorder=3
    )
    there = [kind for kind in ORDER if any(s.finding["kind"] == kind for s in drawn)]
    what = [MEANING[kind] for kind in there] or ["no evidence"]
    axes.set_title(
        f"Source-task graph{f' of {_plain(target)}' if target else ''}: "
        f"{counted(len(place), 'task')}, {counted(len(drawn), 'edge')}",
        fontsize=11,
        pad=10 + 11 * len(what),
    )
    axes.text(
        0.5, 1.01, "\n".join(what), transform=axes.transAxes, ha="center", va="bottom",
        fontsize=8, color="#555",
    )  # fmt: skip
    _legend(axes, drawn, crowd)
    if not crowd:
        _labels(figure, axes, place, drawn)
    _save(figure, path)


def check_matrix(matrix: Matrix) -> None:
    """Refuse a matrix in which there is nothing to draw. Raises RequestError."""
    if not matrix.targets:
        raise RequestError(
            f"There is no {matrix.kind} evidence to draw. Add some: "
            f"python -m mtl.graph measure --targets TASK{graph_places()} (or suggest, or "
            "attribute)."
        )


def check_drawing() -> None:
    """Refuse to draw without matplotlib. Raises RequestError."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise RequestError("Drawing needs matplotlib: pip install matplotlib.") from error


def draw_matrix(matrix: Matrix, path: Path) -> None:
    """Draw the transfer matrix as a heat map, blue helps, red hurts; ``*`` as in the table.

    Raises:
        RequestError: matplotlib is not installed, or there is nothing to draw.
        RunError: the system refuses.
    """
    check_matrix(matrix)
    rows, columns = matrix.values.shape
    figure, axes = _figure(min(2.5 + 0.75 * columns, 40), min(1.8 + 0.4 * rows, 40))
    signed = matrix.kind in SIGNED
    low, high = float(np.nanmin(matrix.values)), float(np.nanmax(matrix.values))
    top = max(abs(low), abs(high)) or 1.0
    axes.set_facecolor(EMPTY)  # where there is no finding: not the white of zero
    image = axes.imshow(
        matrix.values,
        cmap="RdBu" if signed else "Greens",
        vmin=-top if signed else low,
        vmax=top if signed else high if high > low else low + 1,
        aspect="auto",
    )
    names = short_names({*matrix.sources, *matrix.targets})
    if max(rows, columns) <= NAMED:
        sources = [_plain(names[s]) for s in matrix.sources]
        axes.set_xticks(range(columns), sources, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(rows), [_plain(names[t]) for t in matrix.targets])
    if max(rows, columns) <= 25:
        for i, j in np.argwhere(~np.isnan(matrix.values)):
            value = matrix.values[i, j]
            sure = matrix.low[i, j] > 0 or matrix.high[i, j] < 0
            dark = abs(value) > 0.6 * top if signed else (value - low) > 0.6 * (high - low)
            axes.text(
                j,
                i,
                f"{value:+.3f}{'*' if sure else ''}" if signed else f"{value:.3f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )
    axes.set_xlabel("source")
    axes.set_ylabel("target")
    how = f" ({matrix.method})" if matrix.method else ""
    starred = "* the 95 % interval leaves out zero; " if signed else ""
    empty = "grey: no finding" if np.isnan(matrix.values).any() else ""
    notes = (starred + empty).removesuffix("; ")
    axes.set_title(
        f"{MEANING[matrix.kind].partition(':')[0].capitalize()}{_plain(how)}"
        + (f"\n{notes}" if notes else ""),
        fontsize=9,
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.9)
    bar.set_label(_unit(matrix), fontsize=8)
    _save(figure, path)


def _unit(matrix: Matrix) -> str:
    words = {
        "measured": "difference of the test metric: red hurts, blue helps",
        "attribution": "share of the metric: red hurts, blue helps",
        "reliance": "share of what the composition weighs",
    }
    return words.get(matrix.kind, f"score of {_plain(matrix.method or '')}")


def _arrows(axes: Any, drawn: Sequence[Stroke], place: dict[str, Point]) -> None:
    from matplotlib.patches import FancyArrowPatch

    for stroke in drawn:
        width = 0.6 + 4.4 * thickness(stroke)
        axes.add_patch(
            FancyArrowPatch(
                place[stroke.source],
                place[stroke.target],
                connectionstyle="arc3,rad=0.12",  # there and back are two curves
                arrowstyle="-|>",
                mutation_scale=8 + 2 * width,
                shrinkA=5,
                shrinkB=6,
                linewidth=width,
                color=stroke.colour,
                linestyle="-" if stroke.finding["kind"] in SIGNED else (0, (4, 2)),
                alpha=0.8 if stroke.sure else PALE,
                zorder=1 + thickness(stroke),
            )
        )


def _tapered(axes: Any, drawn: Sequence[Stroke], place: dict[str, Point]) -> None:
    """Direction without ten thousand arrow heads: thin where it starts, wide where it ends."""
    from matplotlib.collections import LineCollection

    pieces, widths, colours = [], [], []
    for stroke in drawn:
        start, end = np.array(place[stroke.source]), np.array(place[stroke.target])
        across = np.array([start[1] - end[1], end[0] - start[0]])
        middle = (start + end) / 2 + 0.1 * across
        along = np.linspace(0, 1, 6)[:, None]
        curve = (1 - along) ** 2 * start + 2 * along * (1 - along) * middle + along**2 * end
        widest = 0.2 + 1.0 * thickness(stroke)
        for number in range(len(curve) - 1):
            pieces.append(curve[number : number + 2])
            widths.append(widest * (0.15 + 0.85 * (number + 1) / len(curve)))
            colours.append(stroke.colour)
    axes.add_collection(LineCollection(pieces, linewidths=widths, colors=colours, alpha=0.35))


def _legend(axes: Any, drawn: Sequence[Stroke], crowd: bool) -> None:
    from matplotlib.lines import Line2D

    signs = [s for s in drawn if s.finding["kind"] in SIGNED]
    keys = []
    if signs:
        keys.append(Line2D([], [], color=POSITIVE, lw=3, label="helps"))
        keys.append(Line2D([], [], color=NEGATIVE, lw=3, label="hurts"))
    if not crowd and any(not s.sure for s in drawn):
        label = "pale: the 95 % interval includes zero"
        keys.append(Line2D([], [], color=POSITIVE, lw=3, alpha=PALE, label=label))
    if len(signs) < len(drawn):
        look = "-" if crowd else (0, (4, 2))
        keys.append(Line2D([], [], color=NEUTRAL, lw=2, ls=look, label="has no sign"))
    if keys:
        wide = "wide: strong, relative to its kind" + (
            "; widens towards the target" if crowd else ""
        )
        keys.append(Line2D([], [], color="none", label=wide))
        axes.legend(
            handles=keys, loc="upper center", bbox_to_anchor=(0.5, 0.01), ncols=len(keys),
            frameon=False, fontsize=8, handlelength=2.4, columnspacing=1.4,
        )  # fmt: skip


def _labels(figure: Any, axes: Any, place: dict[str, Point], drawn: Sequence[Stroke]) -> None:
    """Names beside their nodes, with a white rim, measured before they are put."""
    from matplotlib.patheffects import withStroke

    names = short_names(place)
    texts = [
        axes.text(
            0, 0, _plain(names[task]), fontsize=8.5, ha="center", va="center", zorder=4,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
        for task in place
    ]  # fmt: skip
    renderer = figure.canvas.get_renderer()
    sizes = [text.get_window_extent(renderer) for text in texts]
    inside = axes.get_window_extent(renderer)
    corner = np.array([inside.x0, inside.y0])
    pixels = axes.transData.transform(np.array(list(place.values())).reshape(-1, 2)) - corner
    # in points down the page, as on a screen: first above, then below
    flipped = [(float(x), float(inside.height - y)) for x, y in pixels]
    found = label_places(
        flipped,
        [9.0] * len(texts),
        [size.width for size in sizes],
        max((size.height for size in sizes), default=1.0),
        (inside.width, inside.height),
        arrow_heads(drawn, dict(zip(place, flipped, strict=True)), dict.fromkeys(place, 18.0)),
    )
    for text, (x, y) in zip(texts, found, strict=True):
        at = axes.transData.inverted().transform(corner + np.array([x, inside.height - y]))
        text.set_position(tuple(at))


def _figure(width: float, height: float) -> tuple[Any, Any]:
    check_drawing()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _plain(text: str) -> str:
    # a dollar sign would start a formula
    return printable(text).replace("$", r"\$")


def _save(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    write_bytes(path, buffer.getvalue())
