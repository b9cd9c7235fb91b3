"""The graph as a plain text table, one row per edge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtl.graph.model import method_text, negative_edges
from mtl.typed import graph_places
from mtl.words import counted, printable
from mtl.zoo.caveats import MARK, footnotes

if TYPE_CHECKING:
    import networkx as nx


def edge_rows(
    graph: nx.DiGraph,
    target: str | None = None,
    kind: str | None = None,
    score: str | None = None,
) -> list[dict[str, Any]]:
    """One row per finding, targets together, strongest first.

    Args:
        target: only edges into this task.
        kind: only findings of this kind.
        score: of predictions only this score.
    """
    rows = [
        {"source": source, "target": goal, **item}
        for source, goal, data in graph.edges(data=True)
        if target in (None, goal)
        for item in data["evidence"]
        if kind in (None, item["kind"])
        and (score is None or item["kind"] != "predicted" or item["method"] == score)
    ]
    order = {"measured": 0, "attribution": 1, "reliance": 2, "predicted": 3}
    return sorted(
        rows,
        key=lambda r: (r["target"], order[r["kind"]], r["method"], -r["value"], r["source"]),
    )


def render(
    graph: nx.DiGraph,
    target: str | None = None,
    kind: str | None = None,
    score: str | None = None,
) -> str:
    """Nodes and edges as a table, and below it the edges on which transfer hurts.

    ``target``, ``kind`` and ``score`` are as in :func:`edge_rows`.
    """
    from tabulate import tabulate

    found = edge_rows(graph, target, kind, score)
    rows = [
        [
            printable(row["target"]),
            printable(row["source"]),
            row["kind"],
            printable(method_text(row)),
            number(row["value"], row["kind"]) + (MARK if row["caveat"] else ""),
            interval(row["low"], row["high"]),
            row["n"] or "",
            " ".join(map(str, row["seeds"])),
            row["base"][:8],
        ]
        for row in found
    ]
    headers = ["target", "source", "evidence", "method", "value", "95 %", "n", "seeds", "base"]
    parts = [
        tabulate(rows, headers=headers, disable_numparse=True)
        + footnotes((f"{row['source']} → {row['target']}", row["caveat"]) for row in found)
        if rows
        else _nothing(kind, score)
    ]
    tasks = graph.number_of_nodes()
    edges, findings = counted(graph.number_of_edges(), "edge"), counted(len(rows), "finding")
    parts.append(f"{counted(tasks, 'task')}, {edges}, {findings}.")
    hurts = negative_edges(graph, target)
    if hurts:
        parts.append("Negative transfer (measured):")
        parts += [f"  {describe_negative(item)}" for item in hurts]
    return "\n".join(parts)


def _nothing(kind: str | None, score: str | None) -> str:
    if kind or score:
        asked = f"{kind or 'predicted'}{f' ({printable(score)})' if score else ''}"
        return (
            f"There is no {asked} evidence; without --kind and --score all that is there is shown."
        )
    return (
        "There is no evidence yet. Every composition adds its own, and so do "
        f"'python -m mtl.graph suggest --target TASK{graph_places()}' and measure."
    )


def describe_negative(item: dict[str, Any]) -> str:
    """``sst2 → rte: −0.021 [−0.034, −0.008]``, and whether the interval leaves a doubt."""
    span = interval(item["low"], item["high"])
    doubt = "" if item["certain"] else "  (the interval includes zero)" if span else "  (one run)"
    pair = f"{printable(item['source'])} → {printable(item['target'])}"
    return f"{pair}: {item['value']:+.4f} {span}".rstrip() + doubt


def number(value: float, kind: str) -> str:
    """A value with a sign where it is a difference."""
    return f"{value:+.4f}" if kind in {"measured", "attribution"} else f"{value:.4f}"


def interval(low: float | None, high: float | None) -> str:
    """``[low, high]``; ``–`` of values that are all alike, which leave none; or nothing."""
    if low is None or high is None:
        return ""
    return "–" if low == high else f"[{low:+.4f}, {high:+.4f}]"
