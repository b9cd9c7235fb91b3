"""``mtl.joint`` end to end: entries with a head per task, resume, refusals, what others see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_bench import TASKS, digests, entries, leftovers, manifest, mtl, process, refused
from safetensors.numpy import load_file

METHODS = ["hyperformer", "hyperformer++", "propetl-m", "adapter-m", "full-ft-m"]
LINE = ["--suite", "mini", "--epochs", "1"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_into_the_zoo_and_again(method: str, mini: Path) -> None:
    line = [*LINE, "--method", method, "--seeds", "0", "12"]
    dry = mtl("joint", *line, "--dry-run", "--json").json
    assert [row["state"] for row in dry["runs"]] == ["missing"] * 2
    assert [row["train"] for row in dry["runs"]] == [3 * 96] * 2
    assert not mini.exists()
    said = mtl("joint", *line, "--json")
    assert said.code == 0, said
    assert said.err == ""
    rows = said.json["runs"]
    assert [(row["task"], row["seed"], row["status"]) for row in rows] == [
        ("mini/_joint", 0, "done"),
        ("mini/_joint", 12, "done"),
    ]
    assert [row["ref"] for row in rows] == [row["ref"] for row in dry["runs"]]
    assert f"/mini/_joint/{method}/seed12-" in rows[1]["ref"]
    assert [row["task"] for row in rows[0]["tasks"]] == TASKS
    found = manifest(mini, rows[0]["ref"])
    assert found["kind"] == "joint"
    assert found["verified"]["equal_predictions"] == 1.0
    assert found["verified"]["n"] == 3 * 40
    assert found["training"]["steps"] == 18  # 288 rows in batches of 16
    headlines = [f"{row['task']}/{row['metric']}" for row in rows[0]["tasks"]]
    test = found["metrics"]["test"]
    assert test["average"]["value"] == pytest.approx(
        np.mean([test[name]["value"] for name in headlines])
    )
    assert rows[0]["test"] == test["average"]["value"]
    folder = mini / rows[0]["ref"]
    for task in TASKS:
        assert (folder / "heads" / task / "model_head.safetensors").is_file()
        stored = load_file(folder / "predictions" / f"{task}.safetensors")
        assert stored["row"].tolist() == list(range(40))
    again = mtl("joint", *line, "--json")
    assert {row["status"] for row in again.json["runs"]} == {"skipped"}
    assert [row["digest"] for row in again.json["runs"]] == [row["digest"] for row in rows]
    assert mtl("zoo", "fsck").code == 0
    assert mtl("zoo", "ls", "--kind", "joint", "--json").json["entries"][0]["metric"] == "average"
    assert "mini/mood" in (folder / "README.md").read_text()


@pytest.mark.parametrize("method", METHODS)
def test_a_stored_run_answers_after_loading(method: str, mini: Path, backbone: Any) -> None:
    from mtl.data import Passes, encode, load_data
    from mtl.engine import EvalSet, evaluate, open_device
    from mtl.runs import load
    from mtl.tasks import load_task
    from mtl.zoo import open_zoo

    assert mtl("joint", *LINE, "--method", method).code == 0
    zoo = open_zoo(mini)
    (entry,) = zoo.entries(kind="joint")
    attached = load(entry, zoo, backbone).attached
    assert not any(parameter.requires_grad for parameter in attached.network.parameters())
    for task in TASKS:
        spec = load_task(task)
        data = load_data(spec, protocol="official")
        found = evaluate(
            attached,
            EvalSet(spec, encode(data, "test", backbone.tokenizer)),
            open_device("fp32"),
            Passes(rows=7),
        )
        stored = load_file(entry.folder / "predictions" / f"{task}.safetensors")
        np.testing.assert_allclose(found.logits, stored["scores"], atol=1e-5)
        name = f"{task}/{spec.headline}"
        assert found.metrics[spec.headline] == pytest.approx(
            entry.manifest.metrics["test"][name]["value"], abs=1e-3
        )


def test_the_loss_falls_and_every_head_is_trained(mini: Path, tmp_path: Path) -> None:
    said = mtl("joint", "--suite", "mini", "--epochs", "6", "--method", "adapter-m", "--json")
    (row,) = said.json["runs"]
    (folder,) = (tmp_path / "runs").glob("*/")
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert len(events) == 6
    losses = [event["train_loss"] for event in events]
    assert losses[-1] < 0.7 * losses[0]
    assert {name.rpartition("/")[0] for name in events[0]["metrics"]} == set(TASKS)
    assert manifest(mini, row["ref"])["training"]["best_value"] == min(
        event["dev_loss"] for event in events
    )


def test_killed_and_run_again_is_an_unbroken_run(mini: Path, tmp_path: Path) -> None:
    line = ["--suite", "mini", "--method", "adapter-m", "--epochs", "3"]
    whole = ["--zoo", tmp_path / "whole", "--runs", tmp_path / "whole-runs"]
    assert mtl("joint", *line, *whole).code == 0
    code = (
        "import os, signal, sys\n"
        "import mtl.engine.loop as loop\n"
        "real, calls = loop.save_point, []\n"
        "def save(*args):\n"
        "    real(*args)\n"
        "    calls.append(1)\n"
        "    if len(calls) == 23: os.kill(os.getpid(), signal.SIGKILL)\n"
        "loop.save_point = save\n"
        "from mtl.cli.main import dispatch\n"
        "dispatch('joint', sys.argv[1:])\n"
    )
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code, *line],
        env={**os.environ, "MTL_RESUME_SECONDS": "0", "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, done.stderr
    assert not entries(mini)
    assert mtl("joint", *line, "--dry-run", "--json").json["runs"][0]["state"] == "interrupted"
    assert mtl("joint", *line).code == 0
    assert digests(mini) == digests(tmp_path / "whole")


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--suite", "mini"], ["required: --method"]),
        (["--suite", "mini", "--method", "hyperformr"], ["'hyperformr'", "'hyperformer'"]),
        (["--suite", "mini", "--method", "pfeiffer"], ["stage one: python -m mtl.train"]),
        (["--suite", "mini", "--method", "scalearn"], ["stage two: python -m mtl.compose"]),
        (["--method", "adapter-m"], ["--suite NAME", "--task NAME"]),
        (["--task", "mini/mood", "--method", "adapter-m"], ["at least two tasks", "mtl.train"]),
        (
            ["--suite", "mini", "--method", "adapter-m", "--set", "temperature=0"],
            ["temperature=0.0 must be above 0"],
        ),
        (
            ["--suite", "mini", "--method", "adapter-m", "--set", "unselected=mini/moo"],
            ["'mini/moo', which is no task", "'mini/mood'"],
        ),
        (
            ["--suite", "mini", "--method", "adapter-m", "--set", f"unselected={','.join(TASKS)}"],
            ["leaves no task"],
        ),
        (
            ["--suite", "mini", "--method", "adapter-m", "--set", "temprature=2"],
            ["'temprature'", "'temperature'"],
        ),
        (["--suite", "mini", "--method", "adapter-m", "--seeds", "1", "1"], ["named twice"]),
    ],
)
def test_wrong_requests(argv: list[str], parts: list[str], mini: Path) -> None:
    refused(mtl("joint", *argv), *parts)
    assert not entries(mini)


def test_a_recipe_may_limit_a_tasks_rows_and_nothing_else(mini: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    text = (
        "defaults: {epochs: 1, batch_size: 16}\nmethods: {adapter-m: {}}\n"
        "tasks:\n  adapter-m:\n    mini/mood: {%s}\n"
    )
    line = ["--suite", "mini", "--method", "adapter-m", "--recipe", path]
    path.write_text(text % "max_train_samples: 20")
    said = mtl("joint", *line, "--json").json["runs"][0]
    assert said["steps"] == -(-(96 + 20 + 96) // 16)
    sizes = manifest(mini, said["ref"])["data"]
    assert sizes["tasks"]["mini/mood"]["sizes"]["train"] == 20
    assert sizes["sizes"]["train"] == 212
    path.write_text(text % "head: linear")
    said = mtl("joint", *line, "--json")
    assert said.code == 0, said
    ref = said.json["runs"][0]["ref"]
    found = manifest(mini, ref)["head"]
    assert (found["design"], found["designs"]) == ("two_layer", {"mini/mood": "linear"})
    layers = {
        task: json.loads((mini / ref / "heads" / task / "head_config.json").read_text())["config"]
        for task in TASKS
    }
    assert {task: config["layers"] for task, config in layers.items()} == {
        task: 1 if task == "mini/mood" else 2 for task in TASKS
    }
    path.write_text(text % "lr: 0.5")
    refused(mtl("joint", *line), "sets lr of adapter-m", "0.5 for mini/mood", "max_train_samples")


def test_what_selects(mini: Path, tmp_path: Path) -> None:
    line = [*LINE, "--method", "adapter-m", "--set", "unselected=mini/shared,mini/same"]
    (row,) = mtl("joint", *line, "--json").json["runs"]
    found = manifest(mini, row["ref"])
    assert found["task"]["selected"] == ["mini/mood"]
    (events,) = (tmp_path / "runs").glob("*/events.jsonl")
    (event,) = [json.loads(text) for text in events.read_text().splitlines()]
    assert set(event["metrics"]) == {"accuracy"}
    assert event["dev_loss"] == pytest.approx(found["training"]["best_value"])


def test_the_settings_of_the_draws_make_another_run(mini: Path) -> None:
    line = [*LINE, "--method", "adapter-m", "--dry-run", "--json", "--set"]
    hashes = {
        mtl("joint", *line, setting).json["runs"][0]["runhash"]
        for setting in ("temperature=1", "temperature=10", "sampler_seed=-1", "lr=1e-4")
    }
    assert len(hashes) == 4


def test_a_loss_that_is_nan_stores_nothing(mini: Path) -> None:
    said = mtl("joint", *LINE, "--method", "adapter-m", "--lr", "1e30", "--set", "clip=0")
    assert said.code == 1
    assert said.err.count("error: ") == 1
    assert "mini/_joint adapter-m seed 0" in said.err
    assert not entries(mini)
    assert not leftovers(mini)


@pytest.mark.parametrize("file", ["heads/mini/mood/model_head.safetensors", "adapter.safetensors"])
def test_damaged_entries_are_refused(file: str, mini: Path, backbone: Any) -> None:
    from mtl.errors import ZooError
    from mtl.runs import load
    from mtl.zoo import open_zoo

    assert mtl("joint", *LINE, "--method", "adapter-m").code == 0
    zoo = open_zoo(mini)
    (entry,) = zoo.entries()
    path = entry.folder / file
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(ZooError, match="is damaged"):
        load(entry, zoo, backbone)
    refused(mtl("joint", *LINE, "--method", "adapter-m"), "is damaged", file, code=1)


def test_a_joint_entry_is_no_source_and_has_none(mini: Path, backbone: Any) -> None:
    from mtl.runs import load
    from mtl.zoo import open_zoo

    assert mtl("joint", *LINE, "--method", "adapter-m").code == 0
    zoo = open_zoo(mini)
    (entry,) = zoo.entries()
    assert load(entry, zoo, backbone).sources == ()
    refused(mtl("compose", "--target", "mini/same"), "3 of 3 sources are not in the zoo")


def test_another_process_gives_the_same_digest(mini: Path, tmp_path: Path) -> None:
    line = [*LINE, "--method", "adapter-m"]
    assert mtl("joint", *line).code == 0
    torch.rand(3)
    other = process("joint", *line, "--zoo", tmp_path / "other", "--runs", tmp_path / "r2")
    out, err = other.communicate(timeout=120)
    assert other.returncode == 0, err
    assert "mini/shared" in out
    assert digests(mini) == digests(tmp_path / "other")
