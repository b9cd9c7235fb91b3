"""Which source counts in which layer: the heat map of a composition's weights."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError
from mtl.files import write_bytes
from mtl.zoo import composition

if TYPE_CHECKING:
    from mtl.zoo import Entry


def source_weights(entry: Entry) -> tuple[np.ndarray, list[str], list[str]]:
    """Weights of a composition as it uses them: (K,L) matrix, source names, layer names.

    omega as it enters the sum (normalised where the settings say so), averaged over D, for the
    ScaLearn family (one column where it is shared by all layers); mean attention over the test
    tokens for AdapterFusion.

    Raises:
        RequestError: the entry stores neither.
        ZooError: its weights are damaged.
    """
    found = composition.source_weights(entry)
    if found is None:
        raise RequestError(f"{entry.ref} stores no weights per source; nothing to draw.")
    names = [parent["task"].partition("/")[2] for parent in entry.manifest.parents]
    return found.means(), names, list(found.sites)


def _seeds(entries: Sequence[Entry]) -> str:
    found = sorted(entry.manifest.seed for entry in entries)
    shown = ", ".join(map(str, found))
    return f"mean over seeds {shown}" if len(found) > 1 else f"seed {shown}"


def draw_heatmap(entries: Sequence[Entry], path: Path) -> None:
    """Draw the mean weights of runs that differ in their seed only, as a PNG, atomically.

    White is zero; where all weights are above zero, it is their mean, and full colour is at least a
    twentieth of the mean away, so that next to equal weights look so.

    Raises:
        RequestError: matplotlib is not installed, no runs, or runs of different shapes.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RequestError("Drawing needs matplotlib: pip install matplotlib.") from error
    if not entries:
        raise RequestError("There is no composition to draw.")
    parts = [source_weights(entry) for entry in entries]
    matrix = np.mean([part[0] for part in parts], axis=0)
    _, names, layers = parts[0]
    manifest = entries[0].manifest
    centre = float(matrix.mean()) if matrix.min() > 0 else 0.0
    reach = max(float(np.abs(matrix - centre).max()), centre / 20) or 1.0
    digits = 2 if reach > 0.05 else 3
    figure = Figure(figsize=(2.2 + 0.75 * len(layers), 1.6 + 0.42 * len(names)), dpi=130)
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    image = axes.imshow(
        matrix, cmap="RdBu_r", vmin=centre - reach, vmax=centre + reach, aspect="auto"
    )
    axes.set_xticks(range(len(layers)), layers)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("layer")
    for row in range(len(names)):
        for column in range(len(layers)):
            value = matrix[row, column]
            colour = "white" if abs(value - centre) > 0.6 * reach else "black"
            axes.text(
                column,
                row,
                f"{value:.{digits}f}",
                ha="center",
                va="center",
                color=colour,
                fontsize=8,
            )
    how = composition.normalisation(manifest)
    omega = "omega" if how == "none" else f"omega (normalise={how})"
    what = "mean attention" if manifest.method == "fusion" else f"{omega}, mean over D"
    axes.set_title(f"{manifest.task['id']}, {manifest.method}, {_seeds(entries)}", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.9).set_label(what, fontsize=8)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(path, buffer.getvalue())
