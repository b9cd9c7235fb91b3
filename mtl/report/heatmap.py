"""Which source counts in which layer: the heat map of a composition's weights."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError
from mtl.files import write_bytes
from mtl.zoo.composition import ATTENTION, OMEGA, SOUP, SourceWeights, normalisation
from mtl.zoo.composition import source_weights as stored_weights
from mtl.zoo.entry import again_text

if TYPE_CHECKING:
    from mtl.zoo import Entry, Manifest


def source_weights(entry: Entry) -> tuple[np.ndarray, list[str], list[str]]:
    """Signed means of a composition's weights: (K,S) matrix, names of sources, names of sites.

    :class:`mtl.zoo.composition.SourceWeights` defines them and has the magnitudes, too.

    Raises:
        RequestError: the entry stores none.
        ZooError: its weights are damaged.
    """
    found = _weights(entry)
    return found.mean, _sources(entry), list(found.sites)


def _weights(entry: Entry) -> SourceWeights:
    found = stored_weights(entry)
    if found is not None:
        return found
    if entry.manifest.method == "fusion":
        raise RequestError(
            f"{entry.ref}: which source its attention goes to is unknown, because nothing of that "
            f"was stored with it; nothing to draw. To know, {again_text(entry)}"
        )
    raise RequestError(f"{entry.ref} stores no weights per source; nothing to draw.")


def _sources(entry: Entry) -> list[str]:
    return [parent["task"].partition("/")[2] for parent in entry.manifest.parents]


def _seeds(entries: Sequence[Entry]) -> str:
    found = sorted(entry.manifest.seed for entry in entries)
    shown = ", ".join(map(str, found))
    return f"mean over seeds {shown}" if len(found) > 1 else f"seed {shown}"


def new_figure(width: float, height: float, dpi: int) -> Any:
    """An empty matplotlib figure that needs no display.

    Raises:
        RequestError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RequestError("Drawing needs matplotlib: pip install matplotlib.") from error
    figure = Figure(figsize=(width, height), dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: Any, description: str = "") -> bytes:
    """A figure as a PNG, with what is to be seen in words among its metadata."""
    figure.tight_layout()
    buffer = io.BytesIO()
    told = {"Description": description} if description else None
    figure.savefig(buffer, format="png", metadata=told)
    return buffer.getvalue()


def draw_heatmap(entries: Sequence[Entry], path: Path) -> None:
    """Draw the weights of runs that differ in their seed only, their mean, as a PNG, atomically.

    The upper map is the mean over D with its sign. Where scales of opposite sign cancel in it, or
    are negative, a second one shows the magnitude, the mean of their absolute values.

    Raises:
        RequestError: matplotlib is not installed, no runs, or runs of different sites or sources.
        ZooError: the weights of one are damaged.
    """
    figure = new_figure(1, 1, 130)  # whether it can be drawn is said first
    if not entries:
        raise RequestError("There is no composition to draw.")
    weights = [_weights(entry) for entry in entries]
    names, manifest = _sources(entries[0]), entries[0].manifest
    for entry, found in zip(entries, weights, strict=True):
        if (found.kind, found.sites, _sources(entry)) != (weights[0].kind, weights[0].sites, names):
            raise RequestError(
                f"{entries[0].ref} and {entry.ref} weigh other sources, or at other sites; one map "
                "shows runs that differ in their seed only."
            )
    what = _caption(manifest, weights[0], "{}")
    maps = [(_mean(weights, "mean"), what)]
    if any(found.cancels for found in weights):
        size = _caption(manifest, weights[0], "|{}|")
        maps = [(maps[0][0], f"{what} (signed)"), (_mean(weights, "magnitude"), size)]
    sites = weights[0].sites
    height = 1.6 + (0.7 + 0.42 * len(names)) * len(maps)
    figure.set_size_inches(2.2 + 0.75 * len(sites), height)
    for number, (matrix, what) in enumerate(maps, start=1):
        axes: Any = figure.add_subplot(len(maps), 1, number)
        _draw(figure, axes, matrix, what)
        axes.set_xticks(range(len(sites)), sites)
        axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("layer")
    figure.suptitle(f"{manifest.task['id']}, {manifest.method}, {_seeds(entries)}", fontsize=9)
    write_bytes(path, png_of(figure))


def _mean(weights: Sequence[SourceWeights], key: str) -> np.ndarray:
    return np.mean([getattr(found, key) for found in weights], axis=0)


def _caption(manifest: Manifest, weights: SourceWeights, form: str) -> str:
    """What the numbers of a map are; ``form`` puts signs of the absolute value around a weight."""
    if weights.kind == ATTENTION:
        return f"mean attention, tokens of {weights.rows}"
    how = normalisation(manifest)
    named = {SOUP: "weight in the soup", OMEGA: "omega"}.get(weights.kind, weights.kind)
    named = form.format(named) + ("" if how == "none" else f" (normalise={how})")
    return f"{named}, mean over D" + (f" and tokens of {weights.rows}" if weights.rows else "")


def _draw(figure: Any, axes: Any, matrix: np.ndarray, what: str) -> None:
    """One map. White is zero; where all is above zero, it is the mean, and full colour is then at
    least a twentieth of the mean away, so that next to equal weights look so.
    """
    centre = float(matrix.mean()) if matrix.min() > 0 else 0.0
    reach = max(float(np.abs(matrix - centre).max()), centre / 20) or 1.0
    digits = 2 if reach > 0.05 else 3
    image = axes.imshow(
        matrix, cmap="RdBu_r", vmin=centre - reach, vmax=centre + reach, aspect="auto"
    )
    for (row, column), value in np.ndenumerate(matrix):
        colour = "white" if abs(value - centre) > 0.6 * reach else "black"
        text = f"{value:.{digits}f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.9).set_label(what, fontsize=8)
