"""What a zoo has to say as evidence, and the graph that is derived from it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from graph_bench import finding, helper
from safetensors.numpy import save_file
from zoo_bench import composition, manifest, predictions, store, task

from mtl.errors import ZooError
from mtl.graph import build_graph, edge_value, read_evidence, record
from mtl.graph.collect import reliance
from mtl.graph.model import negative_edges
from mtl.graph.table import render
from mtl.zoo import open_zoo
from mtl.zoo.measured import Measured, keep


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


def test_predictions_are_what_the_interval_is_over(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    source, own = helper(zoo), store(zoo, manifest())
    single = composition(zoo, [source], np.ones((1, 1, 4), np.float32), runhash="22" * 8)
    predictions(own.folder, [0, 1, 0, 0])  # all wrong, the composition's are all right
    record(zoo, tmp_path / "graph", [single])
    (found,) = read_evidence(tmp_path / "graph")[0]
    assert (found.low, found.high) == (1.0, 1.0)
