"""The graph and the transfer matrix as PNG files, by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError
from mtl.files import write_bytes
from mtl.graph.layout import positions, strokes
from mtl.graph.model import ORDER
from mtl.words import counted
from mtl.zoo.names import printable

if TYPE_CHECKING:
    import networkx as nx

    from mtl.graph.matrix import Matrix

NAMED = 80
"""Tasks up to which their names are written into the picture, and cells into a matrix."""


def draw_graph(
    graph: nx.DiGraph,
    path: Path,
    *,
    kinds: Sequence[str] = ORDER,
    score: str | None = None,
    target: str | None = None,
) -> None:
    """Draw the graph: width is strength, colour is sign; a stroke thins towards its source.

    Raises:
        RequestError: matplotlib is not installed.
        RunError: the system refuses.
    """
    figure, axes = _figure(9, 6.5)
    from matplotlib.collections import LineCollection

    drawn = strokes(graph, kinds=kinds, score=score, target=target)
    place = positions(graph, drawn)
    pieces, widths, colours = [], [], []
    crowd = len(place) > NAMED
    for stroke in drawn:
        if stroke.source == stroke.target:
            continue
        start, end = np.array(place[stroke.source]), np.array(place[stroke.target])
        across = np.array([start[1] - end[1], end[0] - start[0]])
        middle = (start + end) / 2 + 0.1 * across
        along = np.linspace(0, 1, 6 if crowd else 24)[:, None]
        curve = (1 - along) ** 2 * start + 2 * along * (1 - along) * middle + along**2 * end
        widest = (0.2 + 1.0 * stroke.strength) if crowd else (0.6 + 5 * stroke.strength)
        # direction without ten thousand arrow heads: thin where it starts, wide where it ends
        for number in range(len(curve) - 1):
            pieces.append(curve[number : number + 2])
            widths.append(widest * (0.15 + 0.85 * (number + 1) / len(curve)))
            colours.append(stroke.colour)
    axes.add_collection(
        LineCollection(pieces, linewidths=widths, colors=colours, alpha=0.35 if crowd else 0.8)
    )
    points = np.array(list(place.values())).reshape(-1, 2)
    axes.scatter(
        points[:, 0], points[:, 1], s=6 if crowd else 90, c="white", edgecolors="#333", zorder=3
    )
    if not crowd:
        for task, (x, y) in place.items():
            _label(axes, printable(task), x, y)
    axes.set_xlim(-0.08, 1.08)
    axes.set_ylim(-0.08, 1.1)
    axes.axis("off")
    kinds_there = sorted({stroke.finding["kind"] for stroke in drawn})
    axes.set_title(
        f"{counted(len(place), 'task')}, {counted(len(drawn), 'edge')} "
        f"({', '.join(kinds_there) or 'no evidence'}); "
        "strokes widen towards the target",
        fontsize=9,
    )
    _save(figure, path)


def draw_matrix(matrix: Matrix, path: Path) -> None:
    """Draw the transfer matrix as a heat map, blue helps, red hurts; ``*`` as in the table.

    Raises:
        RequestError: matplotlib is not installed, or there is nothing to draw.
        RunError: the system refuses.
    """
    if not matrix.targets:
        raise RequestError(
            f"There is no {matrix.kind} evidence to draw; python -m mtl.graph measure, suggest and "
            "attribute add some."
        )
    rows, columns = matrix.values.shape
    figure, axes = _figure(min(2.5 + 0.75 * columns, 40), min(1.8 + 0.4 * rows, 40))
    signed = matrix.kind in {"measured", "attribution"}
    low, high = float(np.nanmin(matrix.values)), float(np.nanmax(matrix.values))
    top = max(abs(low), abs(high)) or 1.0
    image = axes.imshow(
        matrix.values,
        cmap="RdBu" if signed else "Greys",
        vmin=-top if signed else low,
        vmax=top if signed else high if high > low else low + 1,
        aspect="auto",
    )
    if max(rows, columns) <= NAMED:
        axes.set_xticks(
            range(columns), [_plain(s) for s in matrix.sources], rotation=40, ha="right"
        )
        axes.set_yticks(range(rows), [_plain(t) for t in matrix.targets])
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
    axes.set_title(f"{matrix.kind}{_plain(how)}", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.9)
    _save(figure, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RequestError("Drawing needs matplotlib: pip install 'mtl[plot]'.") from error
    figure = Figure(figsize=(width, height), dpi=130)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _label(axes: Any, text: str, x: float, y: float) -> None:
    axes.annotate(
        _plain(text), (x, y), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8
    )


def _plain(text: str) -> str:
    # a dollar sign would start a formula
    return printable(text).replace("$", r"\$")


def _save(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    write_bytes(path, buffer.getvalue())
