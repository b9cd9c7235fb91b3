"""``--sources best``: from the command line and from Python, to an entry that tells the choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_bench import mtl, refused

import mtl as face
from mtl.zoo import open_zoo

LINE = ["--target", "same", "--sources", "best", "--epochs", "2"]


def test_the_best_is_searched_on_dev_and_told(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.backbone.backbones import Backbone

    real, splits = Backbone.encode, []

    def watched(self: Any, data: Any, split: str, cache: Any = None) -> Any:
        splits.append(split)
        return real(self, data, split, cache)

    monkeypatch.setattr(Backbone, "encode", watched)
    said = mtl("compose", *LINE, "--json")
    assert said.code == 0, said
    choice, (row,) = said.json["choice"], said.json["runs"]
    first_test = splits.index("test")
    assert splits[:first_test].count("dev") > len(choice["tried"]) - 1  # test rows only afterwards
    assert choice["cost"] <= choice["budget"] == 12
    assert choice["rows"] == 32
    stages = [item["stage"] for item in choice["tried"]]
    assert stages == sorted(stages, key=["single", "forward", "used", "full"].index)
    (entry,) = open_zoo(stocked).entries(kind="composition")
    assert row["ref"] == entry.ref
    told = entry.manifest.training["choice"]
    assert told == json.loads(json.dumps(choice))
    assert tuple(parent["task"] for parent in entry.manifest.parents) == tuple(
        told["chosen"]["sources"]
    )
    assert entry.manifest.method == told["chosen"]["method"]
    best = max(item["dev"] for item in told["tried"] if item["stage"] == "full")
    (picked,) = (
        item
        for item in told["tried"]
        if item["stage"] == "full" and item["candidate"] == told["chosen"]
    )
    assert picked["dev"] == best
    assert mtl("zoo", "fsck").code == 0
    assert mtl("zoo", "verify", entry.ref).code == 0


def test_the_same_line_again_searches_nothing_anew(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = face.compose_adapters("mini/same", sources="best", epochs=2)
    monkeypatch.setattr("mtl.runs.trial.train", lambda *_: pytest.fail("trained again"))
    assert face.compose_adapters("mini/same", sources="best", epochs=2).digest == entry.digest
    runs = mtl("zoo", "gc", "--json").json
    assert "was killed" not in json.dumps(runs)
    said = mtl("compose", *LINE)
    assert "skipped" in said.out
    assert "chosen: " in said.out
    assert "32 dev rows" in said.err


def test_wrong_requests_for_the_best(stocked: Path) -> None:
    refused(mtl("compose", "--target", "same", "--sources", "best", "mood"), "stands alone")
    refused(mtl("compose", "--target", "same", "--sources", "bst"), "Did you mean 'best'?")
    refused(mtl("compose", *LINE, "--trials", "1"), "--trials 1", "takes 1.75")
    refused(mtl("compose", *LINE, "--trials", "0", "--dry-run"), "takes 1.75")
    refused(mtl("compose", *LINE, "--trials", "-3", "--train-missing"), "takes 1.75")
    refused(mtl("compose", *LINE, "--method", "soup"), "'soup' takes fixed weights")
    refused(mtl("compose", "--target", "same", "--trials", "3"), "is for --sources best")
    refused(mtl("compose", *LINE, "--source-seed", "run", "--seeds", "0", "1"), "searched for")
    said = mtl("compose", *LINE, "--dry-run")
    assert said.code == 0
    assert "searching for the best costs up to" in said.err
    assert not open_zoo(stocked).entries(kind="composition")
