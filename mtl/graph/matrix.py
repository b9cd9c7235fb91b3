"""The transfer matrix: one row per target, one column per source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.graph.model import edge_value
from mtl.words import printable
from mtl.zoo.caveats import MARK, footnotes

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class Matrix:
    """Values of one kind of evidence.

    Attributes:
        kind, method: which evidence; method None where there is none at all.
        targets, sources: ids, sorted; of rows and columns.
        values: (targets, sources), NaN where there is no finding.
        low, high: the intervals, NaN where there is none.
        caveats: (target, source) → why a value says less than it seems.
    """

    kind: str
    method: str | None
    targets: list[str]
    sources: list[str]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    caveats: dict[tuple[str, str], str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: None where there is nothing."""

        def plain(array: np.ndarray) -> list[list[float | None]]:
            return [[float(x) if np.isfinite(x) else None for x in row] for row in array]

        return {
            "kind": self.kind,
            "method": self.method,
            "targets": self.targets,
            "sources": self.sources,
            "values": plain(self.values),
            "low": plain(self.low),
            "high": plain(self.high),
            "caveats": [
                {"target": target, "source": source, "caveat": why}
                for (target, source), why in self.caveats.items()
            ],
        }


def transfer_matrix(
    graph: nx.DiGraph,
    kind: str = "measured",
    method: str | None = None,
    *,
    targets: Sequence[str] | None = None,
) -> Matrix:
    """The findings of ``kind`` and ``method`` of all edges; edges from a task to itself count.

    Args:
        method: None for the commonest one: values of several methods do not compare.
        targets: only these rows.
    """
    if method is None:
        counts = Counter(
            item["method"]
            for _, _, data in graph.edges(data=True)
            for item in data["evidence"]
            if item["kind"] == kind
        )
        method = max(sorted(counts), key=lambda how: counts[how], default=None)
    found = {}
    for source, target, data in graph.edges(data=True):
        item = edge_value(data, (kind,), method)
        if item is not None and (targets is None or target in targets):
            found[target, source] = item
    rows = sorted({target for target, _ in found})
    columns = sorted({source for _, source in found})
    parts = {name: np.full((len(rows), len(columns)), np.nan) for name in ("value", "low", "high")}
    for (target, source), item in found.items():
        for name, array in parts.items():
            if item[name] is not None:
                array[rows.index(target), columns.index(source)] = item[name]
    doubts = {key: item["caveat"] for key, item in sorted(found.items()) if item["caveat"]}
    return Matrix(kind, method, rows, columns, parts["value"], parts["low"], parts["high"], doubts)


def matrix_text(matrix: Matrix) -> str:
    """The matrix as a table; ``*`` where the interval leaves out zero."""
    from tabulate import tabulate

    if not matrix.targets:
        return f"There is no {matrix.kind} evidence to show."
    rows = []
    for i, target in enumerate(matrix.targets):
        cells = []
        for j in range(len(matrix.sources)):
            value, low, high = matrix.values[i, j], matrix.low[i, j], matrix.high[i, j]
            mark = "*" if high > low and (low > 0 or high < 0) else ""
            mark += MARK if (target, matrix.sources[j]) in matrix.caveats else ""
            cells.append("" if np.isnan(value) else f"{value:+.4f}{mark}")
        rows.append([printable(target), *cells])
    headers = ["target \\ source", *map(printable, matrix.sources)]
    return (
        tabulate(rows, headers=headers, disable_numparse=True)
        + footnotes((f"{s} → {t}", why) for (t, s), why in matrix.caveats.items())
        + f"\n{matrix.kind}{f' ({matrix.method})' if matrix.method else ''}; * the 95 % interval "
        "leaves out zero"
    )
