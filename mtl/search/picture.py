"""The trials of a search as parallel coordinates: a line per trial, an axis per setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.files import write_bytes
from mtl.report.heatmap import new_figure, png_of

if TYPE_CHECKING:
    from mtl.search.searching import Found
    from mtl.search.space import Dimension
    from mtl.search.trying import Tried

BEST, OTHERS, LOST = "#d55e00", "#0072b2", "#999999"
"""Colours that remain apart for colour-blind readers; given-up trials are dashed, too."""


def draw_search(found: Sequence[Found], path: Path) -> None:
    """Draw the trials of every method, a panel each; the last axis is dev, the best line thick.

    Trials that were given up end before the last axis; number 0, which has no values, is a mark on
    it.

    Raises:
        RequestError: matplotlib is not installed.
    """
    width = 2.5 + 1.8 * max(len(item.space) for item in found)
    figure = new_figure(width, 3.4 * len(found), 130)
    for number, item in enumerate(found, start=1):
        _panel(figure.add_subplot(len(found), 1, number), item)
    write_bytes(path, png_of(figure))


def _panel(axes: Any, found: Found) -> None:
    scores = [item.dev for item in found.tried if item.dev is not None]
    low, high = min(scores), max(scores)
    last = len(found.space)
    for item in found.tried:
        height = None if item.dev is None else _part(item.dev, low, high)
        if item.number == 0:
            if height is not None:
                axes.plot([last], [height], "k>", label="as it is", clip_on=False, zorder=4)
            continue
        places = [_place(dimension, item) for dimension in found.space]
        best = item is found.best
        if height is None:
            axes.plot(places, color=LOST, linestyle="--", linewidth=0.8)
        else:
            axes.plot(
                [*places, height],
                color=BEST if best else OTHERS,
                alpha=1 if best else 0.25 + 0.6 * height,
                linewidth=2.5 if best else 1,
                zorder=3 if best else 2,
                label="best" if best else None,
            )
    for place, dimension in enumerate(found.space):
        for mark, text in _marks(dimension):
            axes.text(place, mark, f"{text} ", ha="right", va="center", fontsize=7)
    for mark, value in ((0.0, low), (1.0, high)):
        axes.text(last, mark, f"  {value:.4f}", ha="left", va="center", fontsize=7)
    names = [f"{item.key}{' (log)' if item.log else ''}" for item in found.space]
    axes.set_xticks(range(last + 1), [*names, f"dev {found.metric}"])
    axes.set_yticks([])
    axes.set_xlim(-0.4, last + 0.4)
    axes.set_ylim(-0.06, 1.06)
    axes.grid(axis="x", color="#bbbbbb")
    axes.set_title(
        f"{found.method}: {len(found.tried)} trials on {found.rows} dev rows, seeds "
        f"{', '.join(map(str, found.seeds))}",
        fontsize=9,
        loc="left",
    )
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)


def _part(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _place(dimension: Dimension, item: Tried) -> float:
    """Where a trial crosses the axis of a setting, from 0 to 1."""
    value = item.values[dimension.key]
    if dimension.choices:
        return _part(dimension.choices.index(value), 0, len(dimension.choices) - 1)
    if dimension.log:
        return _part(math.log(value), math.log(dimension.low), math.log(dimension.high))
    return _part(value, dimension.low, dimension.high)


def _marks(dimension: Dimension) -> list[tuple[float, str]]:
    if dimension.choices:
        count = len(dimension.choices) - 1
        return [(_part(n, 0, count), str(c)) for n, c in enumerate(dimension.choices)]
    return [(0.0, f"{dimension.low:g}"), (1.0, f"{dimension.high:g}")]
