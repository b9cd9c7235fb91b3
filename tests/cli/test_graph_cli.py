"""``mtl.graph`` end to end on the tiny suite."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, digests, entries, mtl, refused, write_spans

SCORES = (
    "tfidf", "textemb", "logme", "probe", "weights", "esm", "hscore", "knn", "taskemb",
)  # fmt: skip


@pytest.fixture(scope="session")
def compositions(
    trained: Path, suite_folder: Path, tiny: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A zoo with a composition of all three sources and one of `mood` alone; do not change it."""
    root = tmp_path_factory.mktemp("composed")
    shutil.copytree(trained, root / "zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_TASKS", str(suite_folder))
        patch.setenv("MTL_MODEL", tiny("roberta"))
        patch.setenv("MTL_CACHE", str(root / "cache"))
        places = ["--zoo", root / "zoo", "--runs", root / "runs"]
        line = ["--target", TARGET, "--epochs", "1", "--json", *places]
        assert mtl("compose", *line, "--seeds", "0", "1").code == 0
        single = ["--sources", "mood", "--method", "average"]
        assert mtl("compose", *line, *single).code == 0
    return root


@pytest.fixture
def composed(mini: Path, compositions: Path) -> Path:
    """The zoo of the test, with those compositions in it and their evidence beside it."""
    shutil.copytree(compositions / "zoo", mini)
    shutil.copytree(compositions / "zoo.graph", mini.with_name("zoo.graph"))
    return mini


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


def test_scores_of_bf16_passes_say_so(stocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtl.compose import halving

    def evidence() -> list[dict[str, Any]]:
        files = sorted((stocked.with_name("zoo.graph") / "evidence").glob("suggest-*.json"))
        return [json.loads(path.read_text())["evidence"][0]["provenance"] for path in files]

    exact = suggest("--scores", "textemb")
    assert (exact["precision"], exact["self_test"]) == ("fp32", None)
    assert not {"precision", "self_test"} & evidence()[0].keys()
    monkeypatch.setattr(halving, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(halving, "WORTH", 1)
    monkeypatch.setattr(halving, "ROWS", 16)
    monkeypatch.setattr(halving, "SHARE", 0.5)
    half = suggest("--scores", "textemb")
    assert half["precision"] == "bf16", half
    assert half["self_test"]["equal"] is True
    assert half["self_test"]["split"] == "dev"
    for task, values in exact["values"].items():
        assert half["values"][task]["textemb"] != values["textemb"]
        assert half["values"][task]["textemb"] == pytest.approx(values["textemb"], abs=0.05)
    assert sorted(said.get("precision", "fp32") for said in evidence()) == ["bf16", "fp32"]
    assert suggest("--scores", "textemb") == half  # kept, and found again
    assert suggest("--scores", "textemb", "--precision", "fp32") == exact
    asked = suggest("--scores", "textemb", "--precision", "bf16")
    assert (asked["values"], asked["self_test"]) == (half["values"], None)
    assert (
        "passes in bf16: on 16 dev rows no score moved"
        in mtl("graph", "suggest", "--target", "same", "--scores", "textemb").out
    )
    monkeypatch.setattr(halving, "SHARE", 0.0)
    strict = suggest("--scores", "textemb")
    assert (strict["precision"], strict["values"]) == ("fp32", exact["values"])
    assert "textemb moved by" in strict["self_test"]["reason"]
    assert any("self_test" in said and "precision" not in said for said in evidence())


def test_auto_scores_in_the_precision_of_the_run(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.compose.scene import Scene

    seen, real = [], Scene.extractor

    def extractor(self: Scene) -> Any:
        made = real(self)
        seen.append((self.precision, made.device.precision))
        return made

    monkeypatch.setattr(Scene, "extractor", extractor)
    line = ["compose", "--target", "same", "--sources", "auto", "--suite", "mini", "--dry-run"]
    for precision in ("auto", "fp32", "bf16"):
        said = mtl(*line, "--precision", precision)
        assert said.code == 0, said
    assert seen == [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")]


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


def test_a_target_whose_rows_are_cut_into_windows(
    stocked: Path, suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a row has no vector of its own: refused by name, as target and as a source."""
    folder = tmp_path / "tasks" / "mini"
    shutil.copytree(suite_folder, folder)
    write_spans(folder)
    monkeypatch.setenv("MTL_TASKS", str(folder))
    refused(mtl("graph", "suggest", "--target", "spans"), "mini/spans", "cut into windows")


def test_suggest_refuses(stocked: Path) -> None:
    refused(mtl("graph", "suggest"), "--target")
    refused(mtl("graph", "suggest", "--target", "same", "--scores", "logm"), "'logm'", "'logme'")
    refused(mtl("graph", "suggest", "--target", "same", "--scores", "knn,knn"), "knn twice")
    refused(mtl("graph", "suggest", "--target", "same", "--rows", "1"), "--rows 1")
    refused(mtl("graph", "suggest", "--target", "same", "--sources", "moo"), "'moo'", "mini/mood")


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


# --- auto, graph:k, train-missing


def compose(*argv: object) -> Any:
    said = mtl("compose", "--target", TARGET, "--epochs", "1", *argv, "--json")
    assert said.code == 0, said
    return said.json


def test_auto_picks_by_logme_where_nobody_calibrated(stocked: Path) -> None:
    said = compose("--sources", "auto", "--budget", "1")
    selection = said["selection"]
    assert selection["ranked_by"] == "logme"
    assert selection["trust"] == "logme: not calibrated here"
    values = suggest("--scores", "logme")["values"]
    best = max(values, key=lambda task: values[task]["logme"])
    assert [c["source"] for c in selection["choices"] if c["chosen"]] == [best]
    assert [ref.split("/")[2] for ref in said["sources"]] == [best.split("/")[1], "same"]
    alone = compose("--sources", "auto", "--budget", "1", "--without-own", "--dry-run")
    assert len(alone["runs"]) == 1
    table = mtl("compose", "--target", TARGET, "--sources", "auto", "--dry-run").out
    assert "why" in table
    assert "ranked by logme; logme: not calibrated here" in table


def test_graph_takes_the_strongest_edges(composed: Path) -> None:
    said = compose("--sources", "graph:k=1,by=reliance", "--without-own")
    edges = mtl("graph", "show", "--json").json["edges"]
    shares = {
        edge["source"]: item["value"]
        for edge in edges
        for item in edge["evidence"]
        if item["kind"] == "reliance" and edge["source"] != TARGET
    }
    best = max(shares, key=lambda task: shares[task])
    assert [ref.split("/")[2] for ref in said["sources"]] == [best.split("/")[1]]
    refused(mtl("compose", "--target", "mood", "--sources", "graph:k=2"), "no measured")


def test_picking_refuses(stocked: Path) -> None:
    def wrong(*argv: str) -> Any:
        return mtl("compose", "--target", TARGET, *argv)

    refused(wrong("--sources", "auto", "mood"), "stands alone")
    refused(wrong("--budget", "2"), "--budget and --min-gain")
    refused(wrong("--sources", "auto", "--min-gain", "0.1"), "nobody measured or calibrated")
    refused(wrong("--sources", "graph:k=2,by=knnn"), "'knnn'", "'knn'")
    refused(wrong("--sources", "autoo"), "Unknown task 'autoo'", "Did you mean 'auto'?")


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


def test_sources_without_an_answer_stand_in_the_table_of_auto(stocked: Path) -> None:
    (mood,) = [path for path in entries(stocked) if "/mood/" in str(path)]
    shutil.rmtree(mood)
    said = compose("--sources", "auto", "--dry-run")
    assert said["runs"]
    table = mtl("compose", "--target", TARGET, "--sources", "auto", "--dry-run").out
    row = next(line for line in table.splitlines() if "mini/mood" in line)
    assert "no candidate: not in the zoo (pfeiffer, seed 0)" in row
    selection = compose("--sources", "auto")["selection"]
    assert selection["no_candidates"] == {"mini/mood": "not in the zoo (pfeiffer, seed 0)"}
    assert [choice["source"] for choice in selection["choices"]] == ["mini/shared"]


def test_features_with_nan_are_skipped_by_name(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder with one broken adapter: nothing of it is scored, the others are."""
    from mtl.compose.features import Extractor

    real = Extractor.source_vectors

    def broken(self: Any, entry: Any, few: Any) -> Any:
        found = real(self, entry, few)
        if "/mood/" in entry.ref:
            found["first"][3, 1] = float("nan")
        return found

    monkeypatch.setattr(Extractor, "source_vectors", broken)
    found = suggest()
    for score in ("logme", "probe", "hscore", "knn"):
        assert found["skipped"]["mini/mood"][score] == "features holds 1 values that are not finite"
        assert score in found["values"]["mini/shared"]
    assert found["skipped"]["mini/mood"]["esm"] == "the source's vectors are not finite"
    stored = mtl("graph", "show", "--json").json["edges"]
    methods = {i["method"] for e in stored if e["source"] == "mini/mood" for i in e["evidence"]}
    assert methods == {"tfidf", "textemb", "weights", "taskemb"}
    selection = compose("--sources", "auto")["selection"]
    assert "no logme: features holds 1 values" in selection["no_candidates"]["mini/mood"]


def test_train_missing_refuses_what_cannot_be_composed_before_it_trains(stocked: Path) -> None:
    (mood,) = [path for path in entries(stocked) if "/mood/" in str(path)]
    shutil.rmtree(mood)
    line = ["--suite", "mini", "--task", "same", "--set", "reduction_factor=8", "--json"]
    assert mtl("train", *line).code == 0  # a second own adapter on the same rows
    before = digests(stocked)
    for sources in ("all", "auto"):
        argv = ["--target", TARGET, "--sources", sources, "--train-missing"]
        refused(mtl("compose", *argv), "'mini/same' is ambiguous")
    assert digests(stocked) == before


def test_the_plan_of_what_is_missing_is_shown_first(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.errors import RunError
    from mtl.runs import running as run

    def dies(plan: Any, workspace: Any, **_: Any) -> Any:
        raise RunError(f"{plan.label} began")

    monkeypatch.setattr(run, "execute", dies)
    monkeypatch.delenv("MTL_QUIET")
    (mood,) = [path for path in entries(stocked) if "/mood/" in str(path)]
    shutil.rmtree(mood)
    line = ["--target", TARGET, "--sources", "all", "--train-missing", "--epochs", "1"]
    said = mtl("compose", *line)
    assert said.code == 1, said
    plan, _, rest = said.err.partition("error: ")
    assert "Sources that the zoo lacks, 1 run of stage one, at the settings of recipe mini." in plan
    assert "mini/mood" in plan
    assert "seed 0: new" in plan
    assert rest.startswith("mini/mood pfeiffer seed 0 began")
    assert "scalearn" not in said.out  # without its sources nothing is composed


def test_train_missing_trains_what_is_not_there_and_nothing_else(stocked: Path) -> None:
    for task in ("mood", "same"):
        (folder,) = [path for path in entries(stocked) if f"/{task}/" in str(path)]
        shutil.rmtree(folder)
    before = digests(stocked)
    line = ["--train-missing", "--max-train-samples", "40"]
    plan = compose(*line, "--dry-run")
    assert [(run["task"], run["train"]) for run in plan["runs"]] == [
        ("mini/mood", 96),
        ("mini/same", 40),
    ]
    assert digests(stocked) == before
    said = compose(*line)
    assert [(row["task"], row["status"]) for row in said["trained"]] == [
        ("mini/mood", "done"),
        ("mini/same", "done"),
    ]
    assert [ref.split("/")[2] for ref in said["sources"]] == ["mood", "shared", "same"]
    again = compose(*line)
    assert (again["trained"], again["runs"][0]["status"]) == ([], "skipped")


# --- measure, calibrate


def test_measure_calibrate_suggest_auto(stocked: Path) -> None:
    line = ["--targets", "same,mood", "--seeds", "0", "--scores", "all", "--epochs", "1"]
    plan = mtl("graph", "measure", *line, "--dry-run", "--json").json
    states = [(run["task"], run["method"], run["state"]) for run in plan["runs"]]
    assert states == [
        ("mini/same", "pfeiffer", "done"),  # the recipe's settings, whatever --epochs says
        ("mini/mood", "pfeiffer", "done"),
        *[("mini/same", "average", "missing")] * 2,
        *[("mini/mood", "average", "missing")] * 2,
    ]
    said = mtl("graph", "measure", *line, "--json").json
    assert [row["status"] for row in said["runs"]] == ["skipped"] * 2 + ["done"] * 4
    matrix = said["matrix"]
    assert matrix["targets"] == ["mini/mood", "mini/same"]
    assert matrix["sources"] == ["mini/mood", "mini/same", "mini/shared"]
    tests = {(row["task"], row["method"]): row["test"] for row in said["runs"][:2]}
    single = [row["test"] for row in said["runs"][2:4]]  # same ← mood, shared
    own = tests["mini/same", "pfeiffer"]
    found = [matrix["values"][1][0], matrix["values"][1][2]]
    assert found == pytest.approx([value - own for value in single])
    assert matrix["values"][0][0] is None
    text = mtl("graph", "measure", *line)
    assert "target \\ source" in text.out
    again = mtl("graph", "measure", *line, "--json").json
    assert {row["status"] for row in again["runs"]} == {"skipped"}
    refused(mtl("graph", "calibrate"), "no target has 3 sources")


def test_calibrate_says_what_to_trust_and_auto_goes_by_it(composed: Path) -> None:
    refused(mtl("graph", "calibrate", "--graph", composed / "none"), "mtl.graph measure")
    suggest()  # the base, the rows and the scores of the tiny target
    folder = composed.with_name("zoo.graph")
    built = [json.loads(path.read_text()) for path in (folder / "evidence").glob("suggest-*")]
    sample = built[0]["evidence"][0]
    truth = [0.3, -0.2, 0.1, 0.0]
    made = [
        {
            **sample, "source": f"toy/{i}", "target": target, "kind": kind, "method": method,
            "value": value, "dev": value, "seeds": [0] if kind == "measured" else [],
        }
        for target in ("toy/a", "toy/b", "toy/c")
        for i, gain in enumerate(truth)
        for kind, method, value in (
            ("measured", "average", gain),
            ("predicted", "knn", gain),
            ("predicted", "logme", -gain),
        )
    ]  # fmt: skip
    (folder / "evidence" / "made.json").write_text(json.dumps({**built[0], "evidence": made}))
    said = mtl("graph", "calibrate")
    assert said.code == 0, said
    assert said.out.splitlines()[2].split()[:2] == ["knn", "+1.00"]
    assert "--sources auto goes by knn." in said.out
    shown = mtl("graph", "suggest", "--target", "same", "--scores", "knn,logme")
    assert "trust: knn: trusted: rank correlation +1.00 [+1.00, +1.00]" in shown.out
    chosen = compose("--sources", "auto", "--dry-run", "--min-gain", "-5")
    assert len(chosen["runs"]) == 1
    table = mtl("compose", "--target", TARGET, "--sources", "auto", "--dry-run").out
    assert "ranked by measured or expected transfer (knn)" in table
    assert "knn lets expect" in table
    assert "measured" in table


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


def test_suggest_finds_the_own_adapter_by_the_targets_own_protocol(
    stocked: Path, suite_folder: Path, tmp_path: Path
) -> None:
    """The suite's sources are split by its protocol, a target outside by its own."""
    task = tmp_path / "mine.yaml"
    task.write_text(
        f"id: my/mine\ndata: {{files: {{train: {suite_folder / 'same_train.csv'}}}}}\n"
        'kind: classification\ninputs: ["{a}", "{b}"]\nlabels: [other, same]\n'
        "metrics: [accuracy]\nmax_length: 32\n"
    )
    line = ["--target", task, "--suite", "mini", "--scores", "weights", "--json"]
    before = mtl("graph", "suggest", *line).json
    assert all("no adapter of the target" in why["weights"] for why in before["skipped"].values())
    own = ["--task", task, "--epochs", "1", "--set", "reduction_factor=4", "--json"]
    assert mtl("train", *own).code == 0
    after = mtl("graph", "suggest", *line).json
    assert set(after["values"]) == {"mini/same", "mini/mood", "mini/shared"}
    assert all("weights" in values for values in after["values"].values()), after
