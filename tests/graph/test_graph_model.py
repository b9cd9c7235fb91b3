"""Evidence files, the graph that is derived from them, and its formats."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from safetensors.numpy import save_file
from zoo_bench import composition, manifest, predictions, store, task

from mtl.errors import RequestError, ZooError
from mtl.graph import Evidence, build_graph, edge_value, graph_folder, read_evidence, record
from mtl.graph.collect import reliance
from mtl.graph.evidence import evidence_file, read_file, write_evidence
from mtl.graph.formats import dot, node_link, read_graph, write_graph
from mtl.graph.model import negative_edges
from mtl.graph.table import render
from mtl.zoo import Entry, Zoo, open_zoo
from mtl.zoo.measured import Measured, keep


def finding(**changes: Any) -> Evidence:
    values: dict[str, Any] = {
        "source": "toy/helper",
        "target": "toy/own",
        "kind": "measured",
        "method": "average",
        "value": 0.1,
        "seeds": (0,),
        "base": "ab" * 32,
        "rows": "r",
    }
    return Evidence(**{**values, **changes})


def test_evidence_comes_back_as_it_was(tmp_path: Path) -> None:
    items = [
        finding(low=-0.1, high=0.3, n=40, layers={"0": 0.5, "1": 0.25}, provenance={"a": [1]}),
        finding(source="toy/own", kind="reliance", seeds=()),
    ]
    path = write_evidence(tmp_path, "compose-1", items)
    assert path == evidence_file(tmp_path, "compose-1")
    assert read_evidence(tmp_path) == (items, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": math.nan}, r"value\s+Input should be a finite number"),
        ({"low": math.inf}, r"low\s+Input should be a finite number"),
        ({"layers": {"0": math.nan}}, r"layers\.0\s+Input should be a finite number"),
        ({"kind": "guessed"}, "'guessed'"),
        ({"source": ""}, r"source\s+String should have at least 1 character"),
        ({"value": "1"}, "valid number.*input_value='1'"),
        ({"value": 1e31}, r"value\s+Input should be less than or equal to"),
        ({"seeds": (True,)}, r"seeds\.0\s+Input should be a valid integer"),
    ],
)
def test_evidence_that_says_nothing_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        finding(**change)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no evidence of schema 1"),
        ('{"schema_version": 99, "evidence": []}', "it says 99"),
        (
            '{"schema_version": 1, "evidence": [{"source": "a"}]}',
            "is damaged: evidence[0]: the key 'target' is missing. Remove it.",
        ),
        (
            '{"schema_version": 1, "evidence": [3]}',
            "is damaged: evidence[0]: should be an object, found 3. Remove it.",
        ),
        (
            '{"schema_version": 1, "evidence": [{"source": "a", "target": "b", "kind": "measured", '
            '"method": "m", "value": 1, "evil": 2}]}',
            "is damaged: evidence[0]: unknown key 'evil'.",
        ),
        (
            '{"schema_version": 1, "evidence": [{"source": "a", "target": "b", "kind": "measured", '
            '"method": "m", "value": 1, "provenance": {"entry": {"ref": 7}}}]}',
            "is damaged: evidence[0].provenance: it.entry.ref: should be a valid string, found 7.",
        ),
    ],
)
def test_a_damaged_file_is_named_and_the_others_are_read(
    content: str, said: str, tmp_path: Path
) -> None:
    write_evidence(tmp_path, "good", [finding()])
    bad = evidence_file(tmp_path, "bad")
    bad.write_text(content)
    found, problems = read_evidence(tmp_path)
    assert found == [finding()]
    assert len(problems) == 1
    assert str(bad) in problems[0]
    assert said in problems[0]
    with pytest.raises(ZooError):
        read_file(bad)


def test_names_of_runs_cannot_leave_the_folder(tmp_path: Path) -> None:
    for name in ("../x", "", ".hidden", "a/b"):
        with pytest.raises(RequestError):
            evidence_file(tmp_path, name)


def _write(folder: Path, number: int) -> None:
    write_evidence(folder, f"run-{number}", [finding(seeds=(number,), value=float(number))])


def test_runs_that_end_at_once_lose_nothing(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_write, [tmp_path] * 24, range(24)))
    found, problems = read_evidence(tmp_path)
    assert not problems
    assert sorted(item.seeds[0] for item in found) == list(range(24))


def test_where_evidence_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert graph_folder(tmp_path / "zoo") == tmp_path / "zoo.graph"
    monkeypatch.setenv("MTL_GRAPH", str(tmp_path / "other"))
    assert graph_folder(tmp_path / "zoo") == tmp_path / "other"
    assert graph_folder(tmp_path / "zoo", "here") == Path("here")


# --- from the zoo


def helper(zoo: Zoo) -> Entry:
    return store(zoo, manifest(task=task("helper"), runhash="11" * 8))


def test_reliance_is_the_share_of_the_omega_mass(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    sources = [helper(zoo), store(zoo, manifest())]
    omega = np.zeros((2, 2, 4), np.float32)
    omega[0, 0], omega[0, 1] = [1, -1, 1, -1], [3, 3, -3, -3]  # masses 1 and 3
    omega[1, 0], omega[1, 1] = [2, 2, 2, 2], [0, 0, 0, 0]
    entry = composition(zoo, sources, omega, runhash="22" * 8)
    how, layers, shares = reliance(entry)  # type: ignore[misc]
    assert (how, layers) == ("omega", ["0", "1"])
    np.testing.assert_allclose(shares, [[0.25, 1.0], [0.75, 0.0]])
    done = record(zoo, tmp_path / "graph")
    assert (done.written, done.kept) == (1, 0)
    found, _ = read_evidence(tmp_path / "graph")
    assert [(e.source, e.target, e.kind, e.method) for e in found] == [
        ("toy/helper", "toy/own", "reliance", "omega"),
        ("toy/own", "toy/own", "reliance", "omega"),
    ]
    assert found[0].value == pytest.approx(0.625)
    assert found[0].layers == pytest.approx({"0": 0.25, "1": 1.0})
    assert found[0].provenance["entry"]["digest"] == entry.digest
    again = record(zoo, tmp_path / "graph")
    assert (again.written, again.kept) == (0, 1)


def test_reliance_is_the_share_of_the_mixture_once_that_was_measured(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    sources = [helper(zoo), store(zoo, manifest())]
    entry = composition(zoo, sources, np.ones((2, 2, 4), np.float32), runhash="22" * 8)
    record(zoo, tmp_path / "graph")
    keep(entry, Measured(["0", "1"], [[0.9, 0.7], [0.1, 0.3]], rows=300))
    done = record(zoo, tmp_path / "graph")
    assert (done.written, done.kept) == (1, 0)
    found, _ = read_evidence(tmp_path / "graph")
    assert [(e.source, e.method) for e in found] == [
        ("toy/helper", "mixture"),
        ("toy/own", "mixture"),
    ]
    assert found[0].value == pytest.approx(0.8)
    assert found[0].layers == pytest.approx({"0": 0.9, "1": 0.7})
    again = record(zoo, tmp_path / "graph")
    assert (again.written, again.kept) == (0, 1)


def test_reliance_on_attention_is_the_attention(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    sources = [helper(zoo), store(zoo, manifest())]
    entry = composition(zoo, sources, np.ones((1, 2, 4), np.float32), runhash="22" * 8)
    attention = {"attention.1": np.array([0.2, 0.8], np.float32)}
    attention |= {"attention.0": np.array([0.6, 0.4], np.float32)}
    save_file(attention, entry.folder / "composition.safetensors")
    how, layers, shares = reliance(entry)  # type: ignore[misc]
    assert (how, layers) == ("attention", ["0", "1"])
    np.testing.assert_allclose(shares, [[0.6, 0.2], [0.4, 0.8]], atol=1e-6)
    save_file({"attention.0": np.ones(3, np.float32)}, entry.folder / "composition.safetensors")
    with pytest.raises(ZooError, match="no weights per source"):
        reliance(entry)


def test_softmaxed_omega_counts_as_it_enters_the_sum(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    sources = [helper(zoo), store(zoo, manifest())]
    omega = np.log(np.array([[[1.0, 1.0], [3.0, 3.0]]], np.float32))
    entry = composition(zoo, sources, omega, runhash="22" * 8)
    entry.manifest.method_settings["normalise"] = "softmax"
    np.testing.assert_allclose(reliance(entry)[2], [[0.25], [0.75]], atol=1e-6)  # type: ignore[index]
    entry.manifest.method_settings["learn"] = False
    assert reliance(entry) is None


def test_measured_transfer_is_composition_minus_own_adapter(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    source = helper(zoo)
    better = {"test": {"accuracy": {"value": 0.75, "stderr": 0.2, "n": 4}}}
    better |= {"dev": {"accuracy": {"value": 0.9, "stderr": 0.2, "n": 4}}}
    plain = {**manifest().metrics, "dev": {"accuracy": {"value": 0.7, "stderr": 0.2, "n": 4}}}
    single = composition(
        zoo, [source], np.ones((1, 1, 4), np.float32), runhash="22" * 8, metrics=better
    )
    folder = tmp_path / "graph"
    assert record(zoo, folder, [single]).written == 1
    assert read_evidence(folder)[0] == []  # no own adapter yet: nothing to compare with
    store(zoo, manifest(seed=7, runhash="33" * 8))  # an own adapter of another seed does not count
    record(zoo, folder)
    assert read_evidence(folder)[0] == []
    own = store(zoo, manifest(metrics=plain))
    record(zoo, folder)
    (found,) = read_evidence(folder)[0]
    assert (found.source, found.target, found.kind) == ("toy/helper", "toy/own", "measured")
    assert found.value == pytest.approx(0.25)
    assert found.dev == pytest.approx(0.2)
    assert found.n == 4
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    assert found.provenance["own"]["digest"] == own.digest
    assert record(zoo, folder).kept == 1
    store(zoo, manifest(runhash="44" * 8))  # a second one fits: the choice would be arbitrary
    done = record(zoo, folder)
    assert "2 own adapters fit" in done.notes[0]
    assert read_evidence(folder)[0] == []


def test_of_two_own_adapters_on_the_same_rows_the_one_with_the_same_limit(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    source, plain = helper(zoo), store(zoo, manifest())
    limited = {"lr": 0.001, "max_train_samples": 300}  # there are 4 rows: it cuts nothing
    cut = store(zoo, manifest(run_settings=limited, runhash="44" * 8))
    omega = np.ones((1, 1, 4), np.float32)
    for number, (settings, own) in enumerate(((limited, cut), ({"lr": 0.001}, plain))):
        mark = f"5{number}" * 8
        single = composition(zoo, [source], omega, runhash=mark, run_settings=settings)
        record(zoo, tmp_path / mark, [single])
        (found,) = read_evidence(tmp_path / mark)[0]
        assert found.provenance["own"]["digest"] == own.digest


def test_a_damaged_composition_is_named_and_the_rest_collected(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    sources = [helper(zoo), store(zoo, manifest())]
    good = composition(zoo, sources, np.ones((1, 2, 4), np.float32), runhash="22" * 8)
    bad = composition(zoo, sources, np.ones((1, 2, 4), np.float32), seed=1, runhash="33" * 8)
    (bad.folder / "composition.safetensors").write_bytes(b"no")
    done = record(zoo, tmp_path / "graph")
    assert done.written == 1
    assert bad.ref in done.notes[0]
    found, _ = read_evidence(tmp_path / "graph")
    assert {item.provenance["entry"]["ref"] for item in found} == {good.ref}


# --- the graph


def test_nodes_carry_sizes_and_entries(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    helper(zoo), store(zoo, manifest())
    bigger = {**manifest().data, "sizes": {"train": 90, "dev": 4, "test": 4}}
    store(zoo, manifest(data=bigger, runhash="55" * 8))
    graph = build_graph(zoo.entries(), [])
    assert sorted(graph) == ["toy/helper", "toy/own"]
    node = graph.nodes["toy/own"]
    assert (node["kind"], node["metric"], node["rows"]) == ("classification", "accuracy", 90)
    assert node["sizes"] == [4, 90]
    assert len(node["entries"]) == 2


def test_seeds_become_one_finding_with_an_interval() -> None:
    items = [finding(seeds=(s,), value=v) for s, v in ((0, 0.1), (1, 0.2), (2, 0.3))]
    graph = build_graph([], [*items, finding(method="scalearn", value=0.9)])
    found = edge_value(graph.edges["toy/helper", "toy/own"])
    assert found is not None
    assert (found["method"], found["seeds"], found["interval"]) == (
        "average",
        [0, 1, 2],
        "over seeds",
    )
    assert found["value"] == pytest.approx(0.2)
    # t(0.975, 2) = 4.302653, s = 0.1
    assert found["high"] - found["value"] == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)


def test_the_same_seed_twice_counts_once_and_bases_never_mix() -> None:
    items = [
        finding(value=0.1, provenance={"created": "2026-01-01"}),
        finding(value=0.3, provenance={"created": "2026-01-02"}),
        finding(value=0.9, base="cd" * 32),
    ]
    graph = build_graph([], items)
    values = [f["value"] for f in graph.edges["toy/helper", "toy/own"]["evidence"]]
    assert values == [0.3, 0.9]
    (only,) = build_graph([], items, "cdcdcdcd").edges["toy/helper", "toy/own"]["evidence"]
    assert only["value"] == 0.9


def test_runs_of_other_settings_or_sources_are_never_averaged(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    one, two = helper(zoo), store(zoo, manifest(task=task("second"), runhash="55" * 8))
    pair, single = np.ones((1, 2, 4), np.float32), np.ones((1, 3, 4), np.float32)
    third = store(zoo, manifest(task=task("third"), runhash="66" * 8))
    for seed in (0, 1):
        composition(zoo, [one, two], pair, seed=seed, runhash=f"{seed:016x}")
    long = {**manifest().run_settings, "epochs": 99}
    composition(zoo, [one, two], pair, seed=1, runhash="77" * 8, run_settings=long)
    composition(zoo, [one, two, third], single, seed=2, runhash="88" * 8)
    record(zoo, tmp_path / "graph")
    graph = build_graph(zoo.entries(), read_evidence(tmp_path / "graph")[0])
    found = graph.edges["toy/helper", "toy/own"]["evidence"]
    shares = sorted((item["seeds"], round(item["value"], 4)) for item in found)
    assert shares == [([0, 1], 0.5), ([1], 0.5), ([2], 0.3333)]
    assert edge_value({"evidence": found})["seeds"] == [0, 1]  # type: ignore[index]
    assert record(zoo, tmp_path / "graph").kept == 4


def test_what_was_measured_speaks_before_what_is_predicted() -> None:
    graph = build_graph(
        [], [finding(kind="predicted", value=9.0), finding(value=-0.2, high=-0.1, low=-0.3)]
    )
    data = graph.edges["toy/helper", "toy/own"]
    assert edge_value(data)["value"] == -0.2  # type: ignore[index]
    assert edge_value(data, ("predicted",))["value"] == 9.0  # type: ignore[index]
    assert edge_value(data, ("reliance",)) is None
    (hurts,) = negative_edges(graph)
    assert hurts["certain"]
    assert "toy/helper → toy/own: -0.2000 [-0.3000, -0.1000]" in render(graph)
    assert negative_edges(graph, "toy/helper") == []


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


def test_predictions_are_what_the_interval_is_over(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    source, own = helper(zoo), store(zoo, manifest())
    single = composition(zoo, [source], np.ones((1, 1, 4), np.float32), runhash="22" * 8)
    predictions(own.folder, [0, 1, 0, 0])  # all wrong, the composition's are all right
    record(zoo, tmp_path / "graph", [single])
    (found,) = read_evidence(tmp_path / "graph")[0]
    assert (found.low, found.high) == (1.0, 1.0)
