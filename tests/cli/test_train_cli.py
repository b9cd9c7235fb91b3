"""``mtl.train`` end to end: what it makes, skips, refuses, and what a failed run leaves."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_bench import ROOT, TASKS, Said, digests, entries, leftovers, mtl, process, refused

from mtl.errors import RequestError
from mtl.files import locked
from mtl.zoo import open_zoo


def test_a_suite_into_the_zoo_and_again(mini: Path) -> None:
    line = ["--suite", "mini", "--seeds", "0", "1", "--epochs", "1"]
    dry = mtl("train", *line, "--dry-run", "--json").json
    assert dry["dry_run"] is True
    assert [row["state"] for row in dry["runs"]] == ["missing"] * 6
    assert not mini.exists()
    first = mtl("train", *line, "--json")
    assert first.code == 0
    assert first.err == ""
    rows = first.json["runs"]
    assert [(row["task"], row["seed"]) for row in rows] == [(t, s) for t in TASKS for s in (0, 1)]
    assert [row["metric"] for row in rows] == ["accuracy"] * 4 + ["pearson"] * 2
    assert {(row["status"], row["n"], row["steps"]) for row in rows} == {("done", 40, 6)}
    assert [row["ref"] for row in rows] == [row["ref"] for row in dry["runs"]]
    assert {row["ref"]: row["digest"] for row in rows} == digests(mini)
    before = {path: path.stat().st_mtime_ns for path in mini.rglob("*")}
    again = mtl("train", *line, "--json")
    assert again.code == 0
    assert {row["status"] for row in again.json["runs"]} == {"skipped"}
    assert [row["digest"] for row in again.json["runs"]] == [row["digest"] for row in rows]
    assert {path: path.stat().st_mtime_ns for path in mini.rglob("*")} == before
    said = mtl("train", *line, "--dry-run")
    assert said.code == 0
    assert "6 runs: 6 done, 0 to be resumed, 0 to be run" in said.out
    other = ["--suite", "mini", "--seeds", "2", "--epochs", "1", "--dry-run", "--json"]
    assert mtl("train", *other).json["runs"][0]["state"] == "missing"


@pytest.mark.parametrize(
    "line",
    [
        ["train", "--task", "mood", "--method", "sora", "--set", "schedule_stages=2", "eta=0"],
        ["joint", "--method", "adapter-m"],
    ],
)
def test_the_last_state_is_stored_and_said(line: list[str], mini: Path) -> None:
    """Through stages and their ``finish``, and of several tasks at once."""
    few = ["--suite", "mini", "--epochs", "1", "--select", "last", "--json"]
    said = mtl(line[0], *few, *line[1:], *(["stage_epochs=1"] if "--set" in line else []))
    assert said.code == 0, said.err
    (entry,) = open_zoo(mini).entries()
    found = entry.manifest
    assert (found.run_settings["select"], found.run_settings["patience"]) == ("last", 0)
    assert found.selected_by() == "last step"
    assert found.training["best_step"] == found.training["steps"] > 0
    assert mtl("zoo", "verify", entry.ref).code == 0
    asked = mtl(line[0], *few, *line[1:], "--patience", "2 epochs")
    refused(asked, "patience=2 epochs waits for a better state", "give patience=0")


def test_a_table_for_people(mini: Path) -> None:
    said = mtl("train", "--task", "mood", "--suite", "mini", "--epochs", "1")
    assert said.code == 0
    head, _, row = said.out.splitlines()
    assert head.split()[:4] == ["task", "seed", "status", "metric"]
    assert row.startswith("mini/mood")
    assert "done" in row


def test_set_flags_and_config_file_mean_the_same_run(mini: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("task: [mini/mood]\nlr: 1e-3\nepochs: 1\nseeds: [3]\n")
    lines = [
        ["--task", "mini/mood", "--seeds", "3", "--set", "lr=1e-3", "run.epochs=1"],
        ["--task", "mini/mood", "--seeds", "3", "--lr", "0.001", "--epochs", "1"],
        ["--config", config],
        ["--config", config, "--epochs", "9", "--set", "epochs=1"],
    ]
    found = [mtl("train", *line, "--dry-run", "--json").json["runs"][0] for line in lines]
    assert all(row == found[0] for row in found)
    other = [*lines[0], "method.reduction_factor=8", "--dry-run", "--json"]
    assert mtl("train", *other).json["runs"][0]["runhash"] != found[0]["runhash"]
    said = mtl("train", *lines[0], "--json")
    (entry,) = entries(mini)
    manifest = json.loads((entry / "manifest.json").read_text())
    assert said.json["runs"][0]["steps"] == 6
    assert manifest["run_settings"]["lr"] == 1e-3
    assert manifest["seed"] == 3


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--suite", "minni"], ["Unknown suite 'minni'", "Did you mean 'mini'?"]),
        (["--task", "mini/moood"], ["Unknown task 'mini/moood'", "'mini/mood'"]),
        (["--suite", "mini", "--method", "pfeifer"], ["method 'pfeifer'", "'pfeiffer'"]),
        (["--suite", "mini", "--set", "lrr=1"], ["Unknown setting 'lrr'", "Did you mean 'lr'?"]),
        (["--suite", "mini", "--set", "lr"], ["--set takes key=value", "'lr'"]),
        (["--suite", "mini", "--set", "lr=fast"], ["lr='fast'", "must be a finite number"]),
        (["--suite", "mini", "--set", "lr=inf"], ["lr='inf'", "must be a finite number"]),
        (["--suite", "mini", "--method", "scalearn"], ["stage two: python -m mtl.compose"]),
        (["--suite", "mini", "--seeds", "0,1"], ["--seeds takes a whole number, not '0,1'"]),
        (["--suite", "mini", "--batch-size", "1.5"], ["--batch-size takes a whole number"]),
        (["--task", "mood", "--task", "same"], ["--task is given twice"]),
        (
            ["--suite", "mini", "--sedes", "1"],
            ["unrecognized arguments: --sedes", "Did you mean '--seeds'? See mtl train --help."],
        ),
        (["mood.yaml"], ["unrecognized arguments: mood.yaml", "A task is named by --task."]),
        (["--suite", "mini", "--learning-rate", "1e-3"], ["Here it is --lr."]),
        (["--suite", "mini", "--per_device_train_batch_size=8"], ["Here it is --batch-size."]),
        (["--config", "no.yaml"], ["There is no file no.yaml"]),
        (["--suite", "mini", "--lr", "0"], ["lr=0.0 must be above 0"]),
        (["--suite", "mini", "--set", "head=two_layers"], ["'two_layers'", "'two_layer'"]),
        (["--suite", "mini", "--recipe", "minn"], ["Unknown recipe 'minn'", "'mini'"]),
        (["--suite", "mini", "--protocol", "oficial"], ["'oficial'", "'official'"]),
        (["--suite", "mini", "--seeds", "1", "1"], ["--seeds: 1 is negative or named twice"]),
        (["--suite", "mini", "--task", "mood", "mood"], ["mini/mood twice"]),
        (["--suite", "mini", "--model", "no/such-model"], ["no/such-model", "--model FOLDER"]),
        (["--suite", "mini", "--data-root", "/nowhere"], ["--data-root /nowhere is no folder"]),
        ([], ["--suite NAME", "--task NAME"]),
    ],
)
def test_wrong_requests(argv: list[str], parts: list[str], mini: Path) -> None:
    refused(mtl("train", *argv), *parts)
    assert not entries(mini)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("learning: 3\n", ["Unknown key 'learning'", "Known keys: model, "]),
        ("epohcs: 3\n", ["Unknown key 'epohcs'", "Did you mean 'epochs'?"]),
        ("lr: fast\n", ["--lr takes a number, not 'fast'"]),
        ("seeds: [one]\n", ["--seeds takes a whole number, not 'one'"]),
        ("deterministic: 3\n", ["--deterministic takes true or false, not 3"]),
        ("task: mood\n", ["task must be a list: `task: [mood]`"]),
        ("set: {lr: 1}\n", ["set must be a list: `set: [key=value]`"]),
        ("task: [mood\n", ["line 2 is no valid YAML"]),
        ("lr: 1\nlr: 2\n", ["line 2", "'lr' is written twice"]),
    ],
)
def test_wrong_config_files(text: str, parts: list[str], mini: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    for argv in (["--config", tmp_path / "run.yaml"], [f"--config={tmp_path / 'run.yaml'}"]):
        refused(mtl("train", "--suite", "mini", *argv), *parts)


def test_every_set_counts(mini: Path) -> None:
    line = ["--task", "mini/mood", "--dry-run", "--json"]
    hashes = [
        mtl("train", *line, *argv).json["runs"][0]["runhash"]
        for argv in (
            ["--set", "lr=1e-3", "epochs=1"],
            ["--set", "lr=1e-3", "--set", "epochs=1"],
            ["--set", "epochs=1"],
        )
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    both = mtl("train", "--suite", "mini", "--task", "mood,same", "--dry-run", "--json").json
    assert [row["task"] for row in both["runs"]] == ["mini/mood", "mini/same"]


@pytest.mark.parametrize("option", ["--runs", "--zoo"])
def test_places_that_cannot_be_written(option: str, mini: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = mtl("train", "--task", "mini/mood", "--epochs", "1", option, tmp_path / "file" / "sub")
    assert said.code == 1
    assert said.err.count("error: ") == 1
    assert "Traceback" not in said.err
    assert str(tmp_path / "file") in said.err
    assert not entries(mini)


def test_a_model_folder_without_a_model(mini: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(mtl("train", "--suite", "mini", "--model", tmp_path / "empty"), str(tmp_path / "empty"))


def test_selection_by_a_named_metric_and_a_length_of_the_runs_own(mini: Path) -> None:
    line = ["--suite", "mini", "--task", "same", "--set", "select=f1", "max_length=8", "--json"]
    (row,) = mtl("train", *line, "--epochs", "1").json["runs"]
    found = json.loads((mini / row["ref"] / "manifest.json").read_text())
    assert found["training"]["selected_by"] == "dev f1"
    assert (found["run_settings"]["max_length"], found["task"]["spec"]["max_length"]) == (8, 8)
    assert mtl("zoo", "verify", row["ref"]).code == 0
    (plain,) = mtl("train", "--suite", "mini", "--task", "same", "--dry-run", "--json").json["runs"]
    assert plain["state"] == "missing"
    said = mtl("train", "--suite", "mini", "--task", "mood", "--select", "f1")
    refused(said, "select=f1", "mini/mood has accuracy")


def test_a_recipe_without_the_method_trains_nothing_and_says_which_recipes_do(
    mini: Path, suite_folder: Path, tmp_path: Path
) -> None:
    """Own data have recipe scalearn; every command that the message offers resolves."""
    path = tmp_path / "own.yaml"
    path.write_text("methods: {pfeiffer: {}}\n")
    line = ["--task", "mini/mood", "--method", "adakron"]
    said = mtl("train", *line, "--recipe", path)
    refused(
        said,
        "Recipe 'own' says nothing of method 'adakron'",
        "--recipe adakron --model roberta-large",
    )
    refused(
        mtl("train", *line, "--recipe", "scalearn"),
        "--recipe adakron --model roberta-large",
        "--recipe none",
    )
    for recipe in ("adakron", "none"):
        dry = mtl("train", *line, "--recipe", recipe, "--dry-run", "--json")
        assert dry.code == 0, dry
    assert mtl("methods", "settings", "--method", "adakron").code == 0
    line = ["--suite", "mini", "--target", "same", "--method", "fusion", "--recipe", path]
    refused(mtl("compose", *line), "says nothing of method 'fusion'", "--recipe scalearn")
    line = ["--suite", "mini", "--method", "adapter-m", "--recipe", path]
    refused(mtl("joint", *line), "says nothing of method 'adapter-m'", "--recipe scalearn")
    assert not mini.exists()


def test_a_loss_that_is_nan_stores_nothing_and_others_go_on(mini: Path) -> None:
    line = ["--suite", "mini", "--task", "mood", "--epochs", "1"]
    said = mtl("train", *line, "--lr", "1e30", "--set", "clip=0", "--json")
    assert said.code == 1
    assert "Traceback" not in said.err
    (error,) = said.err.splitlines()
    for part in ("mini/mood", "step", "lr", "1e+30"):
        assert part in error
    assert said.json["runs"][0]["status"] == "failed"
    assert not entries(mini)
    assert not leftovers(mini)


def test_bad_data_of_one_task_stops_before_anything_runs(mini: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in ("train", "dev", "test"):
        (own / f"{name}.csv").write_text("text,label\nthe cat,sad\na dog,hapy\n")
    (own / "t.yaml").write_text(
        "id: own/t\ndata: {files: {train: train.csv, dev: dev.csv, test: test.csv}}\n"
        'kind: classification\ninputs: ["{text}"]\nlabels: [sad, happy]\nmetrics: [accuracy]\n'
    )
    said = mtl("train", "--suite", "mini", "--task", "mood", own / "t.yaml")
    refused(said, "line 3 of", "train.csv", "'hapy' is none of the labels")
    assert not entries(mini)


def test_a_run_that_another_process_holds(mini: Path, tmp_path: Path) -> None:
    line = ["--suite", "mini", "--task", "mood", "--epochs", "1"]
    assert mtl("train", *line, "--zoo", tmp_path / "other").code == 0
    (entry,) = entries(tmp_path / "other")
    runhash = json.loads((entry / "manifest.json").read_text())["runhash"]
    with locked(tmp_path / "runs" / runhash / "lock", "a test"):
        said = mtl("train", *line)
    assert said.code == 0
    assert "elsewhere" in said.out
    assert f"process {os.getpid()} on" in said.out
    assert "Run the same command again, with --wait" in said.out
    assert not entries(mini)
    assert mtl("train", *line).code == 0
    assert digests(mini) == digests(tmp_path / "other")


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["--version"], 0, "mtl "),
        ([], 0, "usage: mtl COMMAND"),
        (["methods", "ls"], 0, "scalearn-uniform++"),
        (["trian"], 2, "Unknown command 'trian'. Did you mean 'train'?"),
        (["tasks", "show", "mini/mod"], 2, "Did you mean 'mini/mood'?"),
    ],
)
def test_the_console_script(
    argv: list[str],
    code: int,
    text: str,
    mini: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mtl.cli.main import entry

    assert 'mtl = "mtl.cli.main:entry"' in (ROOT / "pyproject.toml").read_text()
    monkeypatch.setattr(sys, "argv", ["mtl", *argv])
    with pytest.raises(SystemExit) as left:
        entry()
    assert left.value.code == code
    said = capsys.readouterr()
    assert text in (said.err if code else said.out)


def test_python_m_in_a_process_of_its_own(mini: Path) -> None:
    worker = process("train", "--suite", "minni")
    out, err = worker.communicate(timeout=60)
    refused(Said(worker.returncode, out, err), "Unknown suite 'minni'", "'mini'")


def test_debug_shows_the_traceback(mini: Path) -> None:
    with pytest.raises(RequestError, match="minni"):
        mtl("train", "--suite", "minni", "--debug")


def test_a_dry_run_tokenises_nothing_and_writes_nothing(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the data, whose fingerprint names the run, and the base; nothing more."""
    from transformers import PreTrainedTokenizerBase

    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("a dry run tokenised something")

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", refuse)
    monkeypatch.setattr("mtl.backbone.backbones.Backbone.encode", refuse)
    before = set(tmp_path.rglob("*"))
    for command, line in {
        "train": ["--suite", "mini", "--seeds", "0", "1"],
        "joint": ["--suite", "mini", "--method", "adapter-m"],
    }.items():
        said = mtl(command, *line, "--dry-run", "--json")
        assert said.code == 0, said
        assert {row["state"] for row in said.json["runs"]} == {"missing"}
    written = {path for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    assert {path.parent.name for path in written} == {"bases"}  # this machine's record of the base


def test_without_a_terminal_a_line_per_finished_run(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log of many runs is read; a line per epoch is for who asks for it."""
    monkeypatch.delenv("MTL_QUIET")
    line = ["--suite", "mini", "--task", "mood", "--epochs", "3", "--max-train-samples", "32"]
    said = mtl("train", *line, "--seeds", "0", "1")
    assert said.code == 0, said
    block, lines = said.err.split("\n\n")[0], said.err.split("\n\n")[1].splitlines()
    assert "seeds 0 1: 2 new" in block
    notes = [text for text in lines if text.startswith("note: ")]  # how good it is: test_quality
    assert len(notes) == 2, said.err
    lines = lines[:-2]
    assert len(lines) == 2, said.err
    for number, text in enumerate(lines):
        start = rf"\[{number + 1}/2\] mini/mood pfeiffer seed {number}: done, accuracy dev "
        assert re.match(start + r"\d\.\d{4} test \d\.\d{4}, \d+ steps, \d+ s$", text), text
    said = mtl("train", *line, "--seeds", "1", "2", "--verbose")
    assert [text for text in said.err.splitlines() if text.startswith("[")] == [
        "[1/2] mini/mood pfeiffer seed 1: skipped",
        [text for text in said.err.splitlines() if not text.startswith("note: ")][-1],
    ]
    assert said.err.count("epoch ") == 3
