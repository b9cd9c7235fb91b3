"""The transfer matrix: one row per target, one column per source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
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
        elsewhere: (target, source) of which there are findings, but over other training rows than
            the rest of the target's line.
    """

    kind: str
    method: str | None
    targets: list[str]
    sources: list[str]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    caveats: dict[tuple[str, str], str] = field(default_factory=dict)
    elsewhere: tuple[tuple[str, str], ...] = ()

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
            "elsewhere": [{"target": t, "source": s} for t, s in self.elsewhere],
        }


def transfer_matrix(
    graph: nx.DiGraph,
    kind: str = "measured",
    method: str | None = None,
    *,
    targets: Sequence[str] | None = None,
    runs: Collection[str] | None = None,
) -> Matrix:
    """The findings of ``kind`` and ``method`` of all edges; edges from a task to itself count.

    Those of one target are over the same training rows, since others do not compare: over the rows
    of which there are findings for most sources, then over most seeds, then the latest.

    Args:
        method: None for the commonest one: values of several methods do not compare.
        targets: only these rows.
        runs: digests of entries; only findings over these.
    """
    if method is None:
        counts = Counter(
            item["method"]
            for _, _, data in graph.edges(data=True)
            for item in data["evidence"]
            if item["kind"] == kind
        )
        method = max(sorted(counts), key=lambda how: counts[how], default=None)
    lines: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for source, target, data in graph.edges(data=True):
        items = [
            item
            for item in data["evidence"]
            if (item["kind"], item["method"]) == (kind, method)
            and (runs is None or _digests(item) & {*runs})
        ]
        if items and (targets is None or target in targets):
            lines.setdefault(target, {})[source] = items
    found: dict[tuple[str, str], dict[str, Any]] = {}
    elsewhere = []
    for target, by_source in lines.items():
        rows_of_it = _common_rows(by_source.values())
        for source, items in by_source.items():
            kept = [item for item in items if item["rows"] == rows_of_it]
            item = edge_value({"evidence": kept})
            if item is None:
                elsewhere.append((target, source))
            else:
                found[target, source] = item
    rows = sorted({target for target, _ in found})
    columns = sorted({source for _, source in found})
    parts = {name: np.full((len(rows), len(columns)), np.nan) for name in ("value", "low", "high")}
    for (target, source), item in found.items():
        for name, array in parts.items():
            if item[name] is not None:
                array[rows.index(target), columns.index(source)] = item[name]
    doubts = {key: item["caveat"] for key, item in sorted(found.items()) if item["caveat"]}
    return Matrix(
        *(kind, method, rows, columns, parts["value"], parts["low"], parts["high"], doubts),
        elsewhere=tuple(sorted(elsewhere)),
    )


def _digests(item: Mapping[str, Any]) -> set[str]:
    """Of the entries that a finding was computed from."""
    entries = [run.get("entry") for run in item["runs"]]
    return {str(entry.get("digest")) for entry in entries if isinstance(entry, Mapping)}


def _common_rows(by_source: Iterable[Sequence[Mapping[str, Any]]]) -> str:
    """The training rows that findings of most sources are over, see :func:`transfer_matrix`."""
    weights: dict[str, tuple[int, int, str]] = {}
    for items in by_source:
        for rows in {str(item["rows"]) for item in items}:
            of_it = [item for item in items if item["rows"] == rows]
            seeds = max(len(item["seeds"]) for item in of_it)
            latest = max(str(item["created"]) for item in of_it)
            before = weights.get(rows, (0, 0, ""))
            weights[rows] = (before[0] + 1, before[1] + seeds, max(before[2], latest))
    return max(weights, key=lambda rows: weights[rows])


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
        "leaves out zero" + "".join(f"\n{line}" for line in elsewhere_lines(matrix))
    )


def elsewhere_lines(matrix: Matrix) -> list[str]:
    """What is not shown because it is over other training rows; one line or none."""
    if not matrix.elsewhere:
        return []
    listed = ", ".join(printable(f"{source} → {target}") for target, source in matrix.elsewhere)
    return [f"not shown, over other training rows than the rest of the line: {listed}"]
