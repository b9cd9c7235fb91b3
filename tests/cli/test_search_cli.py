"""``mtl.search``: trials on dev, a journal, a recipe; killed and run again, the same result."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_bench import TARGET, entries, mtl, process, refused

from mtl.errors import RequestError
from mtl.methods import METHODS
from mtl.search import read_space
from mtl.zoo import open_zoo

SHORT = ("--epochs", "2", "--eval-every", "2", "--patience", "0")


def found_in(said: Any) -> dict[str, Any]:
    assert said.code == 0, said
    return said.json["methods"][0]


def test_the_recipe_makes_the_run_that_was_found_best(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best trial's run and the one of ``--recipe FILE`` have one runhash, few-shot or not."""
    monkeypatch.setenv("MTL_RUNS", str(tmp_path / "runs"))
    for extra in ((), ("--shots", "16")):
        line = ("search", "--task", "mini/mood", "--over", "lr=1e-4..1e-1:log", *extra)
        recipe = tmp_path / f"found{len(extra)}.yaml"
        said = mtl(*line, *SHORT, "--trials", 4, "--out", recipe, "--json")
        best = found_in(said)["best"]
        assert {"lr"} == {*best["values"]}
        dry = mtl(
            *("train", "--task", "mini/mood", "--recipe", recipe, "--seeds", 100),
            *("--dry-run", "--json"),
        )
        assert dry.code == 0, dry
        (run,) = dry.json["runs"]
        (trial,) = tmp_path.glob(f"runs/{run['runhash'][:8]}*/trial.json")
        assert json.loads(trial.read_text())["dev"] == best["dev"]
        assert yaml.safe_load(recipe.read_text())["extends"]
    assert entries(mini) == []


def test_every_method_gets_the_same_number_of_trials(mini: Path, tmp_path: Path) -> None:
    said = mtl(
        *("search", "--task", "mini/mood", "--method", "pfeiffer", "lora", "--recipe", "none"),
        *("--over", "lr=1e-3,1e-2", "lora:rank=2,4", "pfeiffer:bottleneck=4..6", *SHORT),
        *("--trials", 3, "--prune", "none", "--runs", tmp_path / "runs"),
        *("--png", tmp_path / "trials.png", "--json"),
    )
    assert said.code == 0, said
    one = mtl(
        *("search", "--task", "mini/mood", "--method", "pfeiffer", "--recipe", "none"),
        *("--over", "lr=1e-3,1e-2", "pfeiffer:bottleneck=4..6", *SHORT),
        *("--trials", 3, "--prune", "none", "--runs", tmp_path / "runs", "--json"),
    )
    assert one.json["methods"][0]["tried"] == said.json["methods"][0]["tried"]
    assert one.json["recipe"] != said.json["recipe"]  # which is that of both methods, and stays
    pfeiffer, lora = said.json["methods"]
    assert len(pfeiffer["tried"]) == len(lora["tried"]) == 4
    assert {*pfeiffer["tried"][1]["values"]} == {"lr", "bottleneck"}
    assert {*lora["tried"][1]["values"]} == {"lr", "rank"}
    assert all(item["values"]["bottleneck"] in {4, 5, 6} for item in pfeiffer["tried"][1:])
    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")


def test_a_small_space_is_tried_whole_and_more_trials_add_to_it(mini: Path, tmp_path: Path) -> None:
    line = ("search", "--task", "mini/mood", "--over", "lr=1e-3,1e-2,3e-2", *SHORT)
    line = (*line, "--runs", tmp_path / "runs", "--json")
    line = (*line, "--out", tmp_path / "again.yaml")  # its own file it writes again
    few = found_in(mtl(*line, "--trials", 2))
    whole = found_in(mtl(*line, "--trials", 50))
    assert {item["values"]["lr"] for item in whole["tried"][1:]} == {1e-3, 1e-2, 3e-2}
    assert whole["tried"][: len(few["tried"])] == few["tried"]
    assert whole["best"]["dev"] == max(item["dev"] for item in whole["tried"])


def test_a_killed_search_ends_as_an_unbroken_one(mini: Path, tmp_path: Path) -> None:
    line = ("--task", "mini/mood", "--over", "lr=1e-4..1e-1:log", *SHORT, "--trials", "5", "--json")
    whole = found_in(mtl("search", *line, "--runs", tmp_path / "whole"))
    runs = tmp_path / "killed"
    running = process("search", *line, "--runs", runs, MTL_RESUME_SECONDS="0")
    until = time.monotonic() + 90
    while len(list(runs.glob("*/trial.json"))) < 3 and time.monotonic() < until:
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    again = found_in(mtl("search", *line, "--runs", runs))

    def told(found: dict[str, Any]) -> list[Any]:
        return [(item["values"], item["dev"], item["state"]) for item in found["tried"]]

    assert told(again) == told(whole)
    assert again["best"]["values"] == whole["best"]["values"]


def test_compositions_are_searched_over_the_sources_that_are_there(
    stocked: Path, tmp_path: Path
) -> None:
    before = len(entries(stocked))
    said = mtl(
        *("search", "--target", TARGET, "--sources", "all", "--over", "lr=1e-3,1e-2"),
        *(*SHORT, "--trials", 2, "--runs", tmp_path / "runs", "--json"),
    )
    found = found_in(said)
    assert found["method"] == "scalearn"
    assert len(found["tried"]) == 3
    assert len(entries(stocked)) == before


def test_what_diverges_is_a_trial_and_not_the_end(mini: Path, tmp_path: Path) -> None:
    said = mtl(
        *("search", "--task", "mini/mood", "--over", "lr=1e-3,1e30", *SHORT, "--clip", "0"),
        *("--trials", 2, "--runs", tmp_path / "runs", "--json"),
    )
    found = found_in(said)
    states = {item["values"]["lr"]: item["state"] for item in found["tried"]}
    assert states[1e30] == "failed"
    assert states[1e-3] == "done"
    table = mtl(
        *("search", "--task", "mini/mood", "--over", "lr=1e-3,1e30", *SHORT, "--clip", "0"),
        *("--trials", 2, "--runs", tmp_path / "runs"),
    )
    assert "loss" in table.out
    assert "◀" in table.out
    assert "recipe: " in table.out
    assert "as it is" in table.out


def test_a_best_value_at_the_end_of_its_range_is_said(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.runs.trial import Trial

    monkeypatch.setattr(
        "mtl.runs.trial.try_run",
        lambda run, workspace, watch, **_: Trial(run.settings.lr, 0.01, 1, 1.0),
    )
    line = ("search", "--task", "mini/mood", "--runs", tmp_path / "runs", "--trials", 30)
    assert "widen it" in mtl(*line, "--over", "lr=0.2..0.4").out
    assert "widen it" not in mtl(*line, "--over", "lr=0.2,0.3,0.4").out


@pytest.mark.parametrize("prune", ["median", "none"])
def test_what_falls_behind_is_given_up(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prune: str
) -> None:
    """Trials that train as told: those with a tiny rate never get better."""
    from mtl.runs.trial import Trial

    def pretend(run: Any, workspace: Any, watch: Any, **_: Any) -> Trial:
        watch.begin(0)
        for epoch in range(1, 11):
            dev = 0.5 + (0.04 * epoch if run.settings.lr > 1e-5 else 0.0)
            event = {"step": 3 * epoch, "epoch": float(epoch), "metrics": {"accuracy": dev}}
            watch.log(event)
        return Trial(dev, 0.01, 30, 1.0)

    monkeypatch.setattr("mtl.runs.trial.try_run", pretend)
    said = mtl(
        *("search", "--task", "mini/mood", "--over", "lr=1e-2,2e-2,3e-2,4e-2,1e-9,2e-9"),
        *("--prune", prune, "--trials", 6, "--runs", tmp_path / "runs", "--json"),
    )
    states = {t["values"]["lr"]: (t["state"], t["steps"]) for t in found_in(said)["tried"]}
    given_up = ("pruned", 9) if prune == "median" else ("done", 30)
    assert states[1e-9] == states[2e-9] == given_up
    assert states[1e-2] == states[4e-2] == ("done", 30)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["learning_rate=1..2"], "no setting 'learning_rate'"),
        (["lr"], "--over takes"),
        (["lr=1e-2..1e-4"], "must go up"),
        (["lr=0..1:log"], "must go up, from above 0"),
        (["head=a..b"], "takes no such range"),
        (["bottleneck=8,8"], "names a value twice"),
        (["bottleneck=8,many"], "whole number"),
        (["lora:rank=4"], "names no setting of method 'pfeiffer'"),
    ],
)
def test_spaces_that_make_no_sense_are_refused(items: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_space(items, METHODS.get("pfeiffer"))


def test_ranges_that_differ_anywhere_are_told_apart() -> None:
    """A search goes by what its ranges are called."""
    method = METHODS.get("pfeiffer")
    texts = ["lr=1e-4..0.01", "lr=1e-4..0.0100000001", "max_steps=1234567..2000000"]
    said = [str(*read_space([text], method)) for text in texts]
    assert said == ["lr=0.0001..0.01", "lr=0.0001..0.0100000001", "max_steps=1234567..2e+06"]


def test_a_recipe_that_limits_rows_says_so_and_how_to_take_all(mini: Path, tmp_path: Path) -> None:
    """What a quick search left out is left out of every run, its test rows among it."""
    recipe = tmp_path / "found.yaml"
    said = mtl(
        *("search", "--task", "mini/mood", "--over", "lr=1e-3,1e-2", *SHORT, "--trials", 1),
        *("--max-eval-samples", 8, "--runs", tmp_path / "runs", "--out", recipe),
    )
    assert "limits rows as the search did (max_eval_samples=8)" in said.err
    (flags,) = re.findall(r"(--max-eval-samples 0) takes all rows", said.err)
    sizes = []
    for more in ([], flags.split()):
        line = ("train", "--task", "mini/mood", "--recipe", recipe, "--max-steps", 2)
        (run,) = mtl(*line, *more, "--json").json["runs"]
        (entry,) = (e for e in open_zoo(mini).entries() if e.digest == run["digest"])
        sizes.append(entry.manifest.data["sizes"]["test"])
    assert sizes[0] == 8 < sizes[1]


def test_everything_is_checked_before_anything_is_tried(mini: Path, tmp_path: Path) -> None:
    common = ("--runs", tmp_path / "runs", "--trials", 2)
    refused(mtl("search", "--over", "lr=1,2", *common), "--task TASK")
    one = ("--task", "mini/mood", *common)
    refused(mtl("search", *one, "--over", "lr=1e-3,1e-2", "--prune", "media"), "median")
    refused(mtl("search", *one, "--over", "lora:rank=4", "lr=1,2"), "names lora")
    refused(mtl("search", *one, "--over", "bottleneck=-5,8"), "bottleneck")
    refused(mtl("search", *one, "--over", "lr=1e-3,1e-2", "--method", "scalearn"), "--target TASK")
    refused(
        mtl("search", "--target", TARGET, "--over", "lr=1,2", "--sources", "best", *common),
        "search of its own",
    )
    own = tmp_path / "own.yaml"
    own.write_text("methods: {}\n")
    refused(mtl("search", *one, "--over", "lr=1e-3,1e-2", "--out", own), "no search wrote")
    assert own.read_text() == "methods: {}\n"
    assert not (tmp_path / "runs").exists()
    dry = mtl("search", *one, "--over", "lr=1e-3..1e-2:log", "--dry-run")
    assert dry.code == 0
    assert "lr=0.001..0.01:log" in dry.err
    assert not (tmp_path / "runs").exists()


def test_one_process_searches_at_a_time(mini: Path, tmp_path: Path) -> None:
    from mtl.files import locked

    line = ("search", "--task", "mini/mood", "--over", "lr=1e-3,1e-2", *SHORT, "--trials", 1)
    line = (*line, "--runs", tmp_path / "runs")
    assert mtl(*line).code == 0
    (folder,) = (tmp_path / "runs" / "search").iterdir()
    with locked(folder / "lock", "a test"):
        refused(mtl(*line), f"{os.getpid()}", code=1)
