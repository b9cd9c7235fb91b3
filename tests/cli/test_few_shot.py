"""``--shots`` through both stages: the draw is recorded, and no source saw more of the target."""

from __future__ import annotations

import json
from pathlib import Path

from cli_bench import TARGET, digests, entries, manifest, mtl, refused

QUICK = ["--max-steps", "4", "--eval-every", "2", "--json"]


def test_few_shot_through_both_stages(stocked: Path) -> None:
    whole = digests(stocked)
    target = ["--target", TARGET, "--shots", "16"]
    said = mtl("compose", *target, *QUICK)
    # the target's adapter of all 96 rows is there, and must not be taken
    (own,) = [ref for ref in whole if "/same/" in ref]
    refused(said, "1 of 3 sources", "leak", f"{own} (96 rows)", "on the 16 rows", "--shots 16")
    (remedy,) = [text.strip() for text in said.err.splitlines() if "mtl.train" in text]
    words = remedy.partition("#")[0].split()
    first = mtl("train", *words[3:], *QUICK).json["runs"][0]
    found = manifest(stocked, first["ref"])
    assert found["data"]["few_shot"] == {
        "shots": 16,
        "draw": 0,
        "split": "train",
        "rows": list(range(16)),
    }
    assert found["data"]["sizes"] == {"train": 16, "dev": 32, "test": 40}
    assert (found["run_settings"]["patience"], found["run_settings"]["select"]) == (
        "20 epochs",
        "metric",
    )

    said = mtl("compose", *target, *QUICK)
    assert said.code == 0, said
    assert said.json["sources"][-1] == first["ref"]
    assert set(said.json["sources"][:-1]) < set(whole)  # the others saw all of their rows
    run = manifest(stocked, said.json["runs"][0]["ref"])
    assert run["data"]["few_shot"]["rows"] == list(range(16))
    assert mtl("compose", *target, *QUICK).json["runs"][0]["status"] == "skipped"

    # Another draw is another run, whose own source is to be trained on that draw.
    other = mtl("compose", *target, "--shot-draw", "2", *QUICK)
    refused(other, "1 of 3 sources", first["ref"], "--shots 16 --shot-draw 2")
    drawn = mtl("train", "--task", TARGET, "--shots", "16", "--shot-draw", "2", *QUICK)
    rows = manifest(stocked, drawn.json["runs"][0]["ref"])["data"]["few_shot"]["rows"]
    assert rows != list(range(16))
    assert len(set(rows)) == 16
    other = mtl("compose", *target, "--shot-draw", "2", *QUICK)
    assert other.json["sources"][-1] == drawn.json["runs"][0]["ref"]

    # A few-shot adapter of another task does not go before the one of all its rows.
    assert mtl("train", "--task", "mood", "--shots", "4", *QUICK).code == 0
    said = mtl("compose", "--target", TARGET, *QUICK)
    assert set(said.json["sources"]) == set(whole)

    report = mtl("report", "--target", TARGET)
    assert report.code == 0
    assert "train rows" in report.out
    rows = mtl("report", "--target", TARGET, "--json").json["rows"]
    assert {row["settings"]["train rows"] for row in rows} == {16, 96}


def test_evaluations_do_not_dominate(mini: Path) -> None:
    line = ["--task", "mood", "--shots", "8", "--max-steps", "30", "--patience", "0"]
    said = mtl("train", *line, "--json").json["runs"][0]
    assert said["steps"] == 30
    (events,) = (mini.parent / "runs").rglob("events.jsonl")
    steps = [json.loads(text)["step"] for text in events.read_text().splitlines()]
    assert steps == [10, 20, 30]  # and not after each of the 30 epochs of one step


def test_wrong_shots(mini: Path) -> None:
    refused(mtl("train", "--task", "mood", "--shots", "97"), "mini/mood", "only 96 rows")
    refused(mtl("train", "--task", "mood", "--shots", "four"), "--shots", "whole number")
    refused(mtl("train", "--task", "mood", "--shot-draw", "1"), "shot_draw=1", "shots")
    refused(mtl("train", "--task", "mood", "--shots", "-4"), "shots=-4")
    assert not entries(mini)
