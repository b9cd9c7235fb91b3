"""``mtl.graph`` end to end on the tiny suite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_bench import TARGET, mtl, refused


@pytest.fixture
def composed(stocked: Path) -> Path:
    """The zoo with a composition of all three sources and one of `mood` alone."""
    line = ["--target", TARGET, "--epochs", "1", "--json"]
    assert mtl("compose", *line, "--seeds", "0", "1").code == 0
    assert mtl("compose", *line, "--sources", "mood", "--method", "average").code == 0
    return stocked


def test_a_finished_composition_adds_its_evidence(composed: Path) -> None:
    folder = composed.with_name("zoo.graph") / "evidence"
    assert len(list(folder.glob("compose-*.json"))) == 3
    built = mtl("graph", "build", "--json").json
    assert (built["written"], built["kept"], built["problems"]) == (0, 3, [])
    assert (built["nodes"], built["edges"], built["findings"]) == (3, 3, 4)
    shown = mtl("graph", "show", "--json").json
    edges = {(edge["source"], edge["target"]): edge["evidence"] for edge in shown["edges"]}
    assert set(edges) == {(name, "mini/same") for name in ("mini/mood", "mini/shared", "mini/same")}
    kinds = {item["kind"]: item for item in edges["mini/mood", "mini/same"]}
    assert set(kinds) == {"reliance", "measured"}
    assert kinds["reliance"]["seeds"] == [0, 1]
    assert set(kinds["reliance"]["layers"]) == {"0", "1"}
    shares = [
        item["value"] for found in edges.values() for item in found if item["kind"] == "reliance"
    ]
    assert sum(shares) == pytest.approx(1.0)
    zoo = mtl("zoo", "ls", "--json").json["entries"]
    tests = {row["ref"]: row["test"] for row in zoo}
    run = kinds["measured"]["runs"][0]
    assert kinds["measured"]["value"] == pytest.approx(
        tests[run["entry"]["ref"]] - tests[run["own"]["ref"]]
    )
    assert mtl("zoo", "fsck", "--json").json["problems"] == []


def test_build_collects_everything_again(composed: Path, tmp_path: Path) -> None:
    before = mtl("graph", "show", "--json").json
    out = [tmp_path / "g.graphml", tmp_path / "g.dot", tmp_path / "g.json"]
    said = mtl("graph", "build", "--graph", tmp_path / "new", "--out", *out)
    assert said.code == 0, said
    assert "3 runs collected" in said.out
    assert all(path.is_file() for path in out)
    again = mtl("graph", "show", "--graph", tmp_path / "new", "--json").json
    assert again == before
    assert json.loads(out[2].read_text())["edges"] == before["edges"]


def test_the_table(composed: Path) -> None:
    said = mtl("graph", "show", "--target", "same")
    assert said.code == 0
    assert "mini/mood" in said.out
    assert "reliance" in said.out
    assert "3 tasks, 3 edges, 4 findings." in said.out
    empty = mtl("graph", "show", "--target", "mood")
    assert "There is no evidence yet" in empty.out


def test_a_damaged_evidence_file_is_named(composed: Path) -> None:
    path = sorted((composed.with_name("zoo.graph") / "evidence").glob("*.json"))[0]
    path.write_text("{")
    said = mtl("graph", "show")
    assert said.code == 0
    assert str(path) in said.err
    built = mtl("graph", "build", "--json").json  # made again, nothing is lost
    assert (built["written"], built["kept"], built["problems"]) == (1, 2, [])


def test_an_empty_zoo(mini: Path) -> None:
    assert "no evidence yet" in mtl("graph", "show").out
    assert mtl("graph", "build", "--json").json["nodes"] == 0


def test_wrong_requests(stocked: Path) -> None:
    refused(mtl("graph"), "mtl graph --help")
    refused(mtl("graph", "shwo"), "shwo")
    refused(mtl("graph", "show", "--target", "sam"), "'sam'", "mini/same")
    refused(mtl("graph", "show", "--base", "tiny-rob"), "'tiny-rob'", "tiny-roberta")
    refused(mtl("graph", "build", "--out", "x.gexf"), "x.gexf", ".graphml")
    assert mtl("graph", "show", "--base", "tiny-roberta").code == 0
