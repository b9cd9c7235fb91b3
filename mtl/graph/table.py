"""The graph as a plain text table, one row per edge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtl.graph.model import negative_edges
from mtl.words import counted
from mtl.zoo.names import printable

if TYPE_CHECKING:
    import networkx as nx


def edge_rows(graph: nx.DiGraph, target: str | None = None) -> list[dict[str, Any]]:
    """One row per finding, targets together, strongest first."""
    rows = [
        {"source": source, "target": goal, **item}
        for source, goal, data in graph.edges(data=True)
        if target in (None, goal)
        for item in data["evidence"]
    ]
    order = {"measured": 0, "attribution": 1, "reliance": 2, "predicted": 3}
    return sorted(
        rows,
        key=lambda r: (r["target"], order[r["kind"]], r["method"], -r["value"], r["source"]),
    )


def render(graph: nx.DiGraph, target: str | None = None) -> str:
    """Nodes and edges as a table, and below it the edges on which transfer hurts."""
    from tabulate import tabulate

    rows = [
        [
            printable(row["target"]),
            printable(row["source"]),
            row["kind"],
            printable(row["method"]),
            number(row["value"], row["kind"]),
            interval(row["low"], row["high"]),
            row["n"] or "",
            " ".join(map(str, row["seeds"])),
            row["base"][:8],
        ]
        for row in edge_rows(graph, target)
    ]
    headers = ["target", "source", "evidence", "method", "value", "95 %", "n", "seeds", "base"]
    parts = [
        tabulate(rows, headers=headers, disable_numparse=True)
        if rows
        else "There is no evidence yet; mtl.compose, mtl.graph suggest and measure add it."
    ]
    tasks = graph.number_of_nodes()
    edges, findings = counted(graph.number_of_edges(), "edge"), counted(len(rows), "finding")
    parts.append(f"{counted(tasks, 'task')}, {edges}, {findings}.")
    hurts = negative_edges(graph, target)
    if hurts:
        parts.append("Negative transfer (measured):")
        parts += [f"  {describe_negative(item)}" for item in hurts]
    return "\n".join(parts)


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
    """``[low, high]``, or nothing."""
    return "" if low is None or high is None else f"[{low:+.4f}, {high:+.4f}]"
