"""The graph as JSON, GraphML and DOT, and read back."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import networkx as nx
import pytest
from graph_bench import finding

from mtl.errors import RequestError, ZooError
from mtl.graph import build_graph
from mtl.graph.formats import dot, node_link, read_graph, write_graph

ODD = 'a"b<c>&\\d'


def odd_graph() -> nx.DiGraph:
    items = [
        finding(layers={"0": 0.2}, low=0.0, high=0.2, n=7),
        finding(kind="predicted", method="logme", value=-1.5),
        finding(source=f"toy/{ODD}", value=-0.3),
    ]
    return build_graph([], items)


def test_node_link_loses_nothing(tmp_path: Path) -> None:
    graph = odd_graph()
    write_graph(graph, tmp_path / "graph.json")
    again = read_graph(tmp_path / "graph.json")
    assert node_link(again) == node_link(graph)
    assert isinstance(again, nx.DiGraph)
    standard = nx.node_link_graph(json.loads((tmp_path / "graph.json").read_text()), edges="edges")
    assert set(standard.edges) == set(graph.edges)


def test_graphml_reads_back_in_networkx(tmp_path: Path) -> None:
    graph = odd_graph()
    write_graph(graph, tmp_path / "g.graphml")
    again = nx.read_graphml(tmp_path / "g.graphml")
    assert set(again.edges) == set(graph.edges)
    edge = again.edges["toy/helper", "toy/own"]
    assert (edge["measured"], edge["predicted"]) == (0.1, -1.5)
    assert json.loads(edge["evidence"])[0]["layers"] == {"0": 0.2}
    ElementTree.parse(tmp_path / "g.graphml")


def test_dot_quotes_what_is_odd(tmp_path: Path) -> None:
    text = dot(odd_graph())
    assert '"toy/a\\"b<c>&\\\\d" -> "toy/own"' in text
    assert text.count("->") == 2
    assert text.count("{") == text.count("}") == 1
    assert "\n" not in text.split("label=")[1].split("]")[0]


def test_every_line_of_dot_follows_its_grammar() -> None:
    """Read by the rules of the language: names as they were, an edge per edge."""
    graph = odd_graph()
    lines = dot(graph).splitlines()
    assert (lines[0], lines[-1]) == ('digraph "source-task graph" {', "}")
    quoted = r'"((?:[^"\\]|\\.)*)"'
    attributes = rf"\[\w+=(?:{quoted}|[\w.]+)(?:, \w+=(?:{quoted}|[\w.]+))*\]"

    def name(text: str) -> str:
        return re.sub(r"\\(.)", r"\1", text)

    nodes, edges = set(), set()
    for line in lines[2:-1]:
        edge = re.fullmatch(rf"  {quoted} -> {quoted} {attributes};", line)
        node = re.fullmatch(rf"  {quoted} {attributes};", line)
        assert edge or node, line
        if edge:
            edges.add((name(edge.group(1)), name(edge.group(2))))
        elif node:
            nodes.add(name(node.group(1)))
    assert nodes == set(graph)
    assert edges == set(graph.edges)


def test_dot_reads_back_in_networkx(tmp_path: Path) -> None:
    pytest.importorskip("pydot", reason="networkx reads DOT by pydot")
    graph = odd_graph()
    write_graph(graph, tmp_path / "g.dot")
    again = nx.nx_pydot.read_dot(tmp_path / "g.dot")
    assert again.is_directed()
    assert (again.number_of_nodes(), again.number_of_edges()) == (3, 2)
    assert again.has_edge("toy/helper", "toy/own")
    assert float(again.edges["toy/helper", "toy/own", 0]["penwidth"]) > 0.5


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"\.graphml"):
        write_graph(odd_graph(), tmp_path / "g.gexf")
    (tmp_path / "g.json").write_text('{"nodes": [], "edges": [{"source": 1}]}')
    with pytest.raises(ZooError, match="no graph of ours"):
        read_graph(tmp_path / "g.json")
