"""``mtl.report --errors`` on what was trained here: texts from the task's data, own adapters."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from cli_bench import mtl, refused

from mtl.zoo import open_zoo, read_predictions

SHORT = ["--epochs", "1", "--max-steps", "4"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_composition_beside_its_own_adapter(stocked: Path, suite_folder: Path) -> None:
    said = mtl("compose", "--target", "same", "--sources", "all", "--suite", "mini", *SHORT)
    assert said.code == 0, said
    zoo = open_zoo(stocked)
    (own,) = zoo.entries(kind="adapter", task="mini/same")
    (entry,) = zoo.entries(kind="composition")
    found = mtl("report", "--errors", entry.ref, "--json", "--top", "100").json
    assert found["compared"]["ref"] == own.ref
    texts = rows(suite_folder / "same_test.csv")
    wrong = {item["row"]: item for item in found["mistakes"]}
    kept = {e.ref: read_predictions(e.folder) for e in (own, entry)}
    answers = kept[entry.ref]
    assert sorted(wrong) == np.flatnonzero(answers.label != answers.prediction).tolist()
    for row, item in wrong.items():
        assert item["texts"] == [texts[row]["a"], texts[row]["b"]]
        assert item["label"] == texts[row]["label"]
    ours, theirs = (kept[e.ref].label == kept[e.ref].prediction for e in (entry, own))
    assert found["compared"]["mended"] == int((ours & ~theirs).sum())
    assert found["compared"]["broken"] == int((~ours & theirs).sum())
    dev = mtl("report", "--errors", entry.ref, "--split", "dev", "--json").json
    assert dev["n"] == len(read_predictions(entry.folder, "predictions-dev.safetensors").row)
    assert all(item["texts"] for item in dev["mistakes"])


def test_a_task_file_that_is_named(stocked: Path, suite_folder: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """On a machine that never saw the task: numbers alone, with the file the texts."""
    monkeypatch.delenv("MTL_TASKS")
    monkeypatch.setenv("MTL_CACHE", str(stocked.parent / "another machine"))
    line = ["report", "--errors", "mood/pfeiffer/seed0", "--json"]
    found = mtl(*line).json
    assert "without their texts" in " ".join(found["notes"])
    assert not any(item["texts"] for item in found["mistakes"])
    again = mtl(*line, "--task", suite_folder / "mood.yaml").json
    assert all(item["texts"] for item in again["mistakes"])
    assert again["wrong"] == found["wrong"]


def test_one_task_of_a_joint_model(mini: Path) -> None:
    said = mtl("joint", "--suite", "mini", "--method", "adapter-m", *SHORT)
    assert said.code == 0, said
    (entry,) = open_zoo(mini).entries(kind="joint")
    refused(mtl("report", "--errors", entry.ref), "answers 3 tasks", "--target")
    found = mtl("report", "--errors", entry.ref, "--target", "same", "--json").json
    kept = read_predictions(entry.folder, "predictions/mini/same.safetensors")
    assert found["wrong"] == int((kept.label != kept.prediction).sum())
    assert all(len(item["texts"]) == 2 for item in found["mistakes"])
