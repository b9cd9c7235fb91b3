"""``mtl.graph`` end to end on the tiny suite."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, digests, entries, mtl, refused

SCORES = (
    "tfidf", "textemb", "logme", "probe", "weights", "esm", "hscore", "knn", "taskemb",
)  # fmt: skip


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


# --- suggest


def suggest(*argv: object) -> Any:
    said = mtl("graph", "suggest", "--target", "same", *argv, "--json")
    assert said.code == 0, said
    return said.json


def test_suggest_scores_every_candidate_and_keeps_the_evidence(stocked: Path) -> None:
    before = digests(stocked)
    found = suggest()
    assert set(found["values"]) == {"mini/mood", "mini/shared"}
    assert set(found["values"]["mini/mood"]) == set(SCORES)
    assert set(found["base"]) == {"logme", "probe", "esm", "hscore", "knn"}
    assert (found["rows"], found["left_out"]) == (96, {})
    assert all(skipped == {} for skipped in found["skipped"].values())
    again = suggest()
    assert again == found  # from the cache, to the last digit
    files = list((stocked.with_name("zoo.graph") / "evidence").glob("suggest-*.json"))
    assert len(files) == 1
    edges = mtl("graph", "show", "--json").json["edges"]
    assert {edge["source"] for edge in edges} == {"mini/mood", "mini/shared"}
    assert {item["kind"] for edge in edges for item in edge["evidence"]} == {"predicted"}
    values = {i["method"]: i["value"] for e in edges[:1] for i in e["evidence"]}
    assert values == found["values"][edges[0]["source"]]
    assert digests(stocked) == before
    table = mtl("graph", "suggest", "--target", "same", "--scores", "logme,tfidf").out
    assert "(plain base)" in table
    assert "No training run was needed" in table
    assert not list((stocked.parent / "runs").glob("*"))


def test_what_suggest_cannot_score_is_named(stocked: Path, tiny: Any) -> None:
    found = suggest("--max-train-samples", "40", "--scores", "weights", "logme")
    for skipped in found["skipped"].values():
        assert skipped == {"weights": "the zoo has no adapter of the target on these rows"}
    (mood,) = [path for path in entries(stocked) if "/mood/" in str(path)]
    shutil.rmtree(mood)
    found = suggest("--scores", "logme")
    assert found["left_out"] == {"mini/mood": "not in the zoo (pfeiffer, seed 0)"}
    other = suggest("--scores", "logme", "--model", tiny("bert"))
    assert other["values"] == {}
    assert "of another base: tiny-roberta" in other["left_out"]["mini/shared"]
    table = mtl("graph", "suggest", "--target", "same", "--model", tiny("bert"))
    assert "No candidate could be scored." in table.out
    assert "left out: mini/shared: of another base" in table.out
    (shared,) = [path for path in entries(stocked) if "/shared/" in str(path)]
    (shared / "adapter.safetensors").write_bytes(b"no")
    found = suggest("--scores", "tfidf", "knn", "--rows", "50")
    assert "is damaged" in found["skipped"]["mini/shared"]["knn"]
    assert set(found["values"]["mini/shared"]) == {"tfidf"}


def test_a_regression_target(stocked: Path) -> None:
    said = mtl("graph", "suggest", "--target", "shared", "--json").json
    assert said["skipped"]["mini/mood"] == {"hscore": "not defined for regression targets"}
    assert set(said["values"]["mini/mood"]) == set(SCORES) - {"hscore"}


def test_suggest_refuses(stocked: Path) -> None:
    refused(mtl("graph", "suggest"), "--target")
    refused(mtl("graph", "suggest", "--target", "same", "--scores", "logm"), "'logm'", "'logme'")
    refused(mtl("graph", "suggest", "--target", "same", "--scores", "knn,knn"), "knn twice")
    refused(mtl("graph", "suggest", "--target", "same", "--rows", "1"), "--rows 1")
    refused(mtl("graph", "suggest", "--target", "same", "--sources", "moo"), "'moo'", "mini/mood")
