"""What was measured of a composition's sources, beside what the entry stores: kept on this machine.

``python -m mtl.zoo show ENTRY --measure`` measures it (:mod:`mtl.compose.measured`), with the
model and the rows; whoever draws or prints only reads it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mtl.remembered import computed, keep_computed

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry

KIND = "sources"

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Per source (K, in the order of the parents) and site (S, each of its own).

    Attributes:
        sites: layers, or locations and modules in them; where sites share an omega, all of them.
        mixture: (K,S) the share of ‖ω_k ⊙ u_k‖, times the gate of the row's group where there are
            some, in the sum over the sources, a mean over the real tokens of ``rows`` dev rows; the
            columns add up to 1.
        change: (K,S) mean_d |ω_kd − start|, start being ``init_scale``/K; None where that is not
            known.
        omega, stderr: (K,S) mean over D of omega as stored, and its Laplace error from
            ``train_rows`` training rows; None where omega is fixed or normalised.
    """

    sites: list[str]
    mixture: list[list[float]]
    rows: int
    change: list[list[float]] | None = None
    omega: list[list[float]] | None = None
    stderr: list[list[float]] | None = None
    train_rows: int = 0

    def matrix(self, key: str) -> Matrix | None:
        """One of the (K,S) fields."""
        found = getattr(self, key)
        return None if found is None else np.asarray(found, np.float64)

    def text(self, sources: Sequence[str]) -> str:
        """A table: a row per source, a column per site, and what the numbers are."""
        parts = [
            f"share of the mixture, mean over tokens of {self.rows} dev rows:",
            _table(self.matrix("mixture"), None, sources, self.sites),
        ]
        if self.change is not None:
            parts += [
                "change of omega from its start, mean over D of the absolute value:",
                _table(self.matrix("change"), None, sources, self.sites),
            ]
        if self.omega is not None:
            parts += [
                f"omega ± 95 % (Laplace, {self.train_rows} training rows, head and sources taken "
                "as fixed):",
                _table(self.matrix("omega"), self.matrix("stderr"), sources, self.sites),
            ]
        return "\n".join(parts)


def _table(
    values: Matrix | None, errors: Matrix | None, sources: Sequence[str], sites: Sequence[str]
) -> str:
    from tabulate import tabulate

    assert values is not None
    cells = [[f"{value:.3f}" for value in row] for row in values]
    if errors is not None:
        cells = [
            [f"{cell} ± {1.96 * error:.3f}" for cell, error in zip(row, of, strict=True)]
            for row, of in zip(cells, errors, strict=True)
        ]
    lines = [[name, *row] for name, row in zip(sources, cells, strict=True)]
    return tabulate(lines, headers=["source", *sites], disable_numparse=True)


def keep(entry: Entry, found: Measured) -> None:
    """Keep what was measured of ``entry`` on this machine."""
    keep_computed(KIND, entry.digest, asdict(found))


def recall_measured(entry: Entry) -> Measured | None:
    """What was measured of ``entry`` here; None where nothing was."""
    told = computed(KIND, entry.digest)
    if not isinstance(told, dict):
        return None
    try:
        found = Measured(**told)
    except TypeError:  # of another version
        return None
    return found if len(found.mixture) == len(entry.manifest.parents) else None
