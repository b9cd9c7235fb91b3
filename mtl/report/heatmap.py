"""Which source counts in which layer: the heat map of a composition's weights."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError
from mtl.files import write_bytes
from mtl.zoo.composition import ATTENTION, OMEGA, SOUP, SourceWeights, normalisation
from mtl.zoo.composition import source_weights as stored_weights
from mtl.zoo.entry import again_text
from mtl.zoo.measured import recall_measured

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


@dataclass(frozen=True)
class Map:
    """One map of a picture: (K,S) numbers, what they are, names of the columns, 95 % of them."""

    matrix: np.ndarray
    what: str
    sites: Sequence[str]
    errors: np.ndarray | None = None


def draw_heatmap(entries: Sequence[Entry], path: Path) -> None:
    """Draw the weights of runs that differ in their seed only, their mean, as a PNG, atomically.

    The upper map is the mean over D with its sign. Where scales of opposite sign cancel in it, or
    are negative, a second one shows the magnitude, the mean of their absolute values. What was
    measured of all the runs on this machine (:mod:`mtl.zoo.measured`) follows: the share of each
    source in the mixture, how far omega moved from its start, and omega with its error.

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
    drawn = [Map(matrix, what, weights[0].sites) for matrix, what in maps] + _measured(entries)
    widest = max(len(each.sites) * (1 if each.errors is None else 1.6) for each in drawn)
    height = 1.6 + (0.7 + 0.42 * len(names)) * len(drawn)
    figure.set_size_inches(2.2 + 0.75 * widest, height)
    for number, each in enumerate(drawn, start=1):
        axes: Any = figure.add_subplot(len(drawn), 1, number)
        _draw(figure, axes, each)
        axes.set_xticks(range(len(each.sites)), each.sites)
        axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("layer")
    figure.suptitle(f"{manifest.task['id']}, {manifest.method}, {_seeds(entries)}", fontsize=9)
    write_bytes(path, png_of(figure))


def _measured(entries: Sequence[Entry]) -> list[Map]:
    """Maps of what was measured of every one of ``entries``; none where one was not measured."""
    found = [recall_measured(entry) for entry in entries]
    known = [each for each in found if each is not None]
    if len(known) < len(entries) or len({tuple(each.sites) for each in known}) > 1:
        return []
    sites, rows = known[0].sites, known[0].rows

    def mean(key: str, power: float = 1.0) -> np.ndarray | None:
        values = [each.matrix(key) for each in known]
        there = [value for value in values if value is not None]
        if len(there) < len(values):
            return None
        found: np.ndarray = np.mean(np.power(there, power), axis=0) ** (1 / power)
        return found

    maps = []
    for key, what in (
        ("mixture", f"share of the mixture, {rows} dev rows"),
        ("change", "|omega − start|, mean over D"),
    ):
        matrix = mean(key)
        if matrix is not None:
            maps.append(Map(matrix, what, sites))
    omega, errors = mean("omega"), mean("stderr", 2.0)
    if omega is not None and errors is not None:
        maps.append(Map(omega, "omega, mean over D, ± 95 % (Laplace)", sites, 1.96 * errors))
    return maps


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


def _draw(figure: Any, axes: Any, drawn: Map) -> None:
    """One map. White is zero; where all is above zero, it is the mean, and full colour is then at
    least a twentieth of the mean away, so that next to equal weights look so.
    """
    matrix, errors = drawn.matrix, drawn.errors
    centre = float(matrix.mean()) if matrix.min() > 0 else 0.0
    reach = max(float(np.abs(matrix - centre).max()), centre / 20) or 1.0
    digits = 2 if reach > 0.05 else 3
    image = axes.imshow(
        matrix, cmap="RdBu_r", vmin=centre - reach, vmax=centre + reach, aspect="auto"
    )
    for (row, column), value in np.ndenumerate(matrix):
        colour = "white" if abs(value - centre) > 0.6 * reach else "black"
        text = f"{value:.{digits}f}"
        if errors is not None:
            text += f"±{errors[row, column]:.{digits}f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.9).set_label(drawn.what, fontsize=8)
