"""``mtl.graph`` end to end on the tiny suite: evidence, tables, pictures, attribution."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, digests, mtl, refused
from suggest_bench import suggest


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


def test_the_table_is_narrowed_as_the_picture_is(composed: Path) -> None:
    assert suggest("--scores", "tfidf", "logme")
    whole = mtl("graph", "show").out
    assert all(word in whole for word in ("reliance", "measured", "tfidf", "logme"))
    kind = mtl("graph", "show", "--kind", "predicted").out
    assert "tfidf" in kind
    assert "logme" in kind
    assert "reliance" not in kind
    score = mtl("graph", "show", "--kind", "predicted", "--score", "tfidf").out
    assert "tfidf" in score
    assert "logme" not in score
    none = mtl("graph", "show", "--kind", "predicted", "--score", "knn").out
    assert "There is no predicted (knn) evidence" in none


def test_a_damaged_evidence_file_is_named(composed: Path) -> None:
    path = sorted((composed.with_name("zoo.graph") / "evidence").glob("*.json"))[0]
    path.write_text("{")
    said = mtl("graph", "show")
    assert said.code == 0
    assert str(path) in said.err
    built = mtl("graph", "build", "--json").json  # made again, nothing is lost
    assert (built["written"], built["kept"], built["problems"]) == (1, 2, [])


def test_evidence_of_removed_runs_stays_until_it_is_pruned(composed: Path) -> None:
    (single,) = [ref for ref in digests(composed) if "/average/" in ref]
    assert mtl("zoo", "rm", single).code == 0
    built = mtl("graph", "build", "--json").json
    assert len(built["stale"]) == 1
    assert built["findings"] == 4
    assert "--prune removes it" in mtl("graph", "build").out
    assert "(removed)" in mtl("graph", "build", "--prune").out
    built = mtl("graph", "build", "--json").json
    assert (built["stale"], built["findings"]) == ([], 3)


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


def test_probes_are_no_evidence(stocked: Path) -> None:
    """Their scales were set by hand: nothing was learned, and scale 0 is no transfer."""
    line = ["--target", TARGET, "--epochs", "1", "--without-own", "--probe", "0", "1", "--json"]
    for sources in (["mood"], ["mood", "shared"]):
        said = mtl("compose", *line, "--sources", *sources)
        assert said.code == 0, said
    assert mtl("graph", "build", "--json").json["findings"] == 0


def test_evidence_is_there_as_soon_as_its_run_has_ended(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second seed dies; what the first one found is beside the zoo already."""
    from mtl.runs import running as run

    real = run.execute

    def dies(plan: Any, workspace: Any, **_: Any) -> Any:
        if plan.seed == 1:
            raise KeyboardInterrupt
        return real(plan, workspace)

    monkeypatch.setattr(run, "execute", dies)
    line = ["--target", TARGET, "--epochs", "1", "--seeds", "0", "1"]
    with contextlib.suppress(KeyboardInterrupt):
        mtl("compose", *line)
    files = list((stocked.with_name("zoo.graph") / "evidence").glob("compose-*.json"))
    assert len(files) == 1
    edges = mtl("graph", "show", "--json").json["edges"]
    assert {item["seeds"][0] for edge in edges for item in edge["evidence"]} == {0}


def test_show_draws(composed: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"g.{name}" for name in ("html", "png", "matrix")}
    options = [item for name, path in files.items() for item in (f"--{name}", path)]
    said = mtl("graph", "show", *options)
    assert said.code == 0, said
    assert all(str(path) in said.out and path.stat().st_size > 1000 for path in files.values())
    assert "mini/mood" in files["html"].read_text()
    suggest("--scores", "knn")
    again = mtl("graph", "show", "--matrix", files["matrix"], "--score", "knn", "--json")
    assert again.json["drawn"] == [str(files["matrix"])]
    refused(mtl("graph", "show", "--html", files["html"], "--score", "knnn"), "'knnn'", "'knn'")
    wrong = ["--html", files["html"], "--score", "knn", "--kind", "measured"]
    refused(mtl("graph", "show", *wrong), "--kind predicted")
    refused(mtl("graph", "show", "--target", "mood", "--matrix", tmp_path / "no"), "no measured")
    refused(mtl("graph", "show", "--html", "/proc/nothing/g.html"), "Cannot write", code=1)


def test_what_cannot_be_drawn_is_said_before_anything_is_written(
    composed: Path, tmp_path: Path
) -> None:
    files = {name: tmp_path / f"g.{name}" for name in ("html", "png", "matrix")}
    line = ["graph", "show", "--target", "mood"]  # nothing was measured for it
    pictures = [word for name, path in files.items() for word in (f"--{name}", path)]
    said = mtl(*line, *pictures)
    refused(said, "no measured evidence to draw")
    assert not any(path.exists() for path in files.values())
    said = mtl("graph", "show", *pictures)
    assert said.code == 0, said
    assert all(path.exists() for path in files.values())


# --- attribute


@pytest.mark.parametrize("method", ["scalearn", "fusion"])
def test_attribute(method: str, stocked: Path) -> None:
    line = ["--target", TARGET, "--epochs", "2", "--method", method, "--json"]
    run = mtl("compose", *line).json["runs"][0]
    before = digests(stocked)
    said = mtl("graph", "attribute", run["ref"], "--per-layer", "--json")
    assert said.code == 0, said
    found = said.json
    assert (found["metric"], found["split"], found["n"]) == ("accuracy", "dev", 32)
    assert found["whole"] == pytest.approx(run["dev"])  # nothing off: the stored composition
    shapley = found["shapley"]
    assert (shapley["exact"], shapley["passes"]) == (True, 8)
    assert set(shapley["values"]) == {"mini/mood", "mini/shared", "mini/same"}
    assert sum(shapley["values"].values()) == pytest.approx(found["whole"] - found["empty"])
    assert set(found["layers"]) == set(found["layer_shapley"]) == {"0", "1"}
    for layer in found["layer_shapley"].values():
        total = found["whole"] - layer["empty"]
        assert sum(layer["values"].values()) == pytest.approx(total, abs=1e-9)
    planned = mtl("graph", "attribute", run["ref"], "--per-layer", "--dry-run", "--json")
    cost = planned.json["dry_run"]
    assert (cost["sources"], cost["layers"], cost["rows"]) == (3, ["0", "1"], 32)
    assert cost["passes"] == found["passes"] == 8 + 2 * 7
    one = mtl("graph", "attribute", run["ref"], "--layers", "1")
    assert one.err.startswith("3 sources, and layer 1 by itself (Shapley values, exact): 15 ")
    assert "Shapley value at one layer" in one.out
    refused(mtl("graph", "attribute", run["ref"], "--layers", "2"), "layer '2'", "0, 1, all")
    table = mtl("graph", "attribute", run["ref"], "--split", "test", "--no-shapley")
    assert "left out" in table.out
    assert "Shapley" not in table.out
    assert f"{run['test']:.4f} with all sources" in table.out
    assert digests(stocked) == before
    edges = mtl("graph", "show", "--json").json["edges"]
    kinds = [item["kind"] for edge in edges for item in edge["evidence"]]
    assert kinds.count("attribution") == 6


def test_attribute_refuses(stocked: Path, tiny: Any) -> None:
    refused(mtl("graph", "attribute"), "entry")
    (mood,) = [ref for ref in digests(stocked) if "/mood/" in ref]
    refused(mtl("graph", "attribute", mood), "is an adapter of one task", "mtl.zoo ls")
    refused(mtl("graph", "attribute", "same/scalern/seed0"), "There is no entry")
    line = ["--target", TARGET, "--epochs", "1", "--json"]
    ref = mtl("compose", *line).json["runs"][0]["ref"]
    refused(mtl("graph", "attribute", ref, "--split", "dve"), "'dve'", "'dev'")
    refused(mtl("graph", "attribute", ref, "--model", tiny("bert")), "trained on 'tiny-roberta'")
    refused(mtl("graph", "attribute", ref, "--orders", "1"), "--orders 1")
    shutil.rmtree(stocked / mood)
    refused(mtl("graph", "attribute", ref), "needs its source", mood, code=1)
