"""The graph as files of other tools: JSON node-link, GraphML, DOT.

GraphML and DOT know only flat attributes: of each edge the strongest finding of every kind (value
and interval), and in GraphML all of them again as JSON in ``evidence``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, ZooError
from mtl.files import finite, read_json, write_bytes, write_json, write_text
from mtl.graph.model import ORDER, edge_value
from mtl.typed import graph_places
from mtl.words import printable

if TYPE_CHECKING:
    import networkx as nx

SUFFIXES = {".json": "JSON node-link", ".graphml": "GraphML", ".dot": "DOT"}


def write_graph(graph: nx.DiGraph, path: Path) -> None:
    """Write the graph in the format that the suffix of ``path`` names, atomically.

    Raises:
        RequestError: another suffix than .json, .graphml or .dot.
        RunError: the system refuses.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        write_json(path, node_link(graph))
    elif suffix == ".graphml":
        write_bytes(path, graphml(graph))
    elif suffix == ".dot":
        write_text(path, dot(graph))
    else:
        known = ", ".join(f"{key} ({text})" for key, text in SUFFIXES.items())
        raise RequestError(f"Cannot write the graph as {path.name!r}: use one of {known}.")


def node_link(graph: nx.DiGraph) -> dict[str, Any]:
    """The graph as ``networkx.node_link_data`` gives it: nothing is lost."""
    import networkx as nx

    data = finite(nx.node_link_data(graph, edges="edges"))
    assert isinstance(data, dict)
    return data


def read_graph(path: Path) -> nx.DiGraph:
    """Read a JSON node-link file.

    Raises:
        ZooError: missing, damaged, or no graph of ours.
    """
    import networkx as nx

    stored = read_json(path)
    try:
        graph = nx.node_link_graph(stored, directed=True, multigraph=False, edges="edges")
        for _, _, data in graph.edges(data=True):
            edge_value(data)
    except (KeyError, TypeError, AttributeError, nx.NetworkXError) as error:
        raise ZooError(
            f"{path} is no graph of ours ({error!r}). 'python -m mtl.graph "
            f"build{graph_places()}' makes it again."
        ) from error
    return graph


def flat(graph: nx.DiGraph) -> nx.DiGraph:
    """The same graph with attributes of plain types only."""
    import networkx as nx

    plain = nx.DiGraph(name=str(graph.graph.get("name", "")))
    for task, node in graph.nodes(data=True):
        plain.add_node(
            printable(task),
            suite=printable(node["suite"]),
            kind=printable(node["kind"]),
            metric=printable(node["metric"]),
            rows=int(node["rows"]),
            entries=len(node["entries"]),
        )
    for source, target, data in graph.edges(data=True):
        values: dict[str, Any] = {}
        for kind in ORDER:
            found = edge_value(data, (kind,))
            if found is None:
                continue
            values[kind] = float(found["value"])
            values |= {
                f"{kind}_{side}": float(found[side])
                for side in ("low", "high")
                if found[side] is not None
            }
            values[f"{kind}_method"] = printable(found["method"])
            values[f"{kind}_seeds"] = len(found["seeds"])
        values["evidence"] = printable(json.dumps(finite(data["evidence"])))
        plain.add_edge(printable(source), printable(target), **values)
    return plain


def graphml(graph: nx.DiGraph) -> bytes:
    """The graph as GraphML."""
    import networkx as nx

    text = "\n".join(nx.generate_graphml(flat(graph)))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def dot(graph: nx.DiGraph) -> str:
    """The graph in the language of Graphviz: width by strength, red where transfer hurts."""
    lines = ['digraph "source-task graph" {', "  node [shape=box, style=rounded];"]
    strongest = max((abs(f["value"]) for f in _speaking(graph)), default=0.0) or 1.0
    for task, node in graph.nodes(data=True):
        label = f"{task}\n{node['rows']} rows"
        lines.append(f"  {_quoted(task)} [label={_quoted(label)}];")
    for source, target, data in graph.edges(data=True):
        found = edge_value(data)
        if found is None:
            continue
        # reliance and scores have units of their own, but one picture has one scale
        width = 0.5 + 4.5 * min(1.0, abs(found["value"]) / strongest)
        colour = "#b2182b" if found["value"] < 0 else "#2166ac"
        label = f"{found['kind']} {found['value']:+.3f}"
        lines.append(
            f"  {_quoted(source)} -> {_quoted(target)} [label={_quoted(label)}, "
            f'penwidth={width:.2f}, color="{colour}"];'
        )
    return "\n".join([*lines, "}", ""])


def _speaking(graph: nx.DiGraph) -> list[dict[str, Any]]:
    found = (edge_value(data) for _, _, data in graph.edges(data=True))
    return [item for item in found if item is not None]


def _quoted(text: str) -> str:
    parts = [printable(part) for part in str(text).split("\n")]
    escaped = [part.replace("\\", "\\\\").replace('"', '\\"') for part in parts]
    return '"' + "\\n".join(escaped) + '"'
