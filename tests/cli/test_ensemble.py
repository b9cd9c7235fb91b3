"""An ensemble of stored answers: chosen on dev, scored once on test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_bench import mtl, refused
from safetensors.numpy import load_file, save_file

from mtl.report.ensemble import ensemble_of
from mtl.zoo import open_zoo, read_predictions

SHORT = ["--epochs", "1", "--max-steps", "4"]


@pytest.fixture
def several(stocked: Path) -> Path:
    for seed in (1, 2):
        assert mtl("train", "--task", "same", "--seeds", seed, *SHORT).code == 0
    assert mtl("compose", "--target", "same", *SHORT).code == 0
    return stocked


def test_members_are_chosen_on_dev_and_averaged(several: Path) -> None:
    entries = open_zoo(several).entries(task="mini/same")
    found = ensemble_of(entries)
    assert found.metric == "accuracy"
    assert set(found.members) <= {entry.ref for entry in entries}
    by_ref = {entry.ref: entry for entry in entries}
    for name, told in (("predictions-dev", found.dev), ("predictions", found.test)):
        mean, label = 0.0, None
        for ref, times in found.members.items():
            stored = read_predictions(by_ref[ref].folder, f"{name}.safetensors")
            odds = np.exp(stored.scores.astype(np.float64))
            mean, label = mean + times * odds / odds.sum(1, keepdims=True), stored.label
        assert told["accuracy"]["value"] == pytest.approx(np.mean(np.argmax(mean, 1) == label))
    singles = [entry.manifest.metrics["dev"]["accuracy"]["value"] for entry in entries]
    assert found.best_dev == max(singles)
    assert found.dev["accuracy"]["value"] >= found.best_dev
    assert found.best_test == by_ref[found.best].manifest.metrics["test"]["accuracy"]["value"]


def test_the_choice_never_looks_at_test(several: Path) -> None:
    entries = open_zoo(several).entries(task="mini/same")
    before = ensemble_of(entries)
    rng = np.random.default_rng(0)
    for entry in entries:
        path = entry.folder / "predictions.safetensors"
        arrays = load_file(path)
        arrays["scores"] = rng.normal(size=arrays["scores"].shape).astype(np.float32)
        save_file(arrays, path)
    after = ensemble_of(entries)
    assert (after.members, after.dev, after.best) == (before.members, before.dev, before.best)


def test_what_cannot_be_averaged_is_said(several: Path) -> None:
    from mtl.errors import RequestError

    zoo = open_zoo(several)
    with pytest.raises(RequestError, match="of one task, not of 3"):
        ensemble_of(zoo.entries(kind="adapter"))
    with pytest.raises(RequestError, match="needs two entries"):
        ensemble_of(zoo.entries(task="mini/mood"))
    limited = ["--seeds", "3", "--max-eval-samples", "30"]
    assert mtl("train", "--task", "same", *limited, *SHORT).code == 0
    found = ensemble_of(open_zoo(several).entries(task="mini/same"))
    assert list(found.left_out.values()) == ["its dev or test rows are others"]


def test_rows_with_equal_labels_and_other_texts_are_not_averaged(several: Path) -> None:
    """Labels of two files may be the same, and the numbers of two orders of names."""
    entries = open_zoo(several).entries(task="mini/same")
    data, told = entries[1].manifest.data, entries[2].manifest.task
    names = list(reversed(told["labels"]))
    splits = {**data["splits"], "test": "0" * 64}
    other = replace(
        entries[1], manifest=replace(entries[1].manifest, data={**data, "splits": splits})
    )
    turned = replace(
        entries[2], manifest=replace(entries[2].manifest, task={**told, "labels": names})
    )
    found = ensemble_of([entries[0], other, turned, *entries[3:]])
    assert found.left_out == {
        other.ref: "its dev or test rows have other texts",
        turned.ref: "its labels are others, or in another order",
    }
    assert not {other.ref, turned.ref} & {*found.members}


def test_the_command_shows_it_beside_the_best(several: Path) -> None:
    said = mtl("report", "--target", "same", "--ensemble")
    assert said.code == 0, said
    assert "chosen on dev by accuracy" in said.out
    assert "the best on dev alone" in said.out
    told = mtl("report", "--target", "same", "--ensemble", "--json").json
    assert told["ensemble"]["task"] == "mini/same"
    refused(mtl("report", "--suite", "mini", "--ensemble"), "entries of one task, not of 3")
