"""Sources that ``auto`` or the graph picks or that are trained first; measured and calibrated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, digests, entries, mtl, refused
from suggest_bench import compose, suggest


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
