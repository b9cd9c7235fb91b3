"""``examples/own_data``: the first page's commands over files of one's own, and what came out."""

from __future__ import annotations

import csv
import json
import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_bench import ROOT, Said, mtl

from mtl.zoo import open_zoo

FOLDER = ROOT / "examples/own_data"


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Said]]:
    """The folder after all commands, and what each said."""
    folder = tmp_path_factory.mktemp("road")
    said: dict[str, Said] = {}

    def run(module: str, argv: Sequence[str]) -> None:
        line = " ".join([module, *argv])
        said[line] = mtl(module.removeprefix("mtl."), *argv)
        assert said[line].code == 0, (line, said[line])

    with pytest.MonkeyPatch.context() as patch:
        for name in ("MTL_TASKS", "MTL_ZOO", "MTL_RUNS", "MTL_MODEL", "MTL_DATA_ROOT"):
            patch.delenv(name, raising=False)
        patch.setenv("MTL_CACHE", str(folder / "cache"))
        patch.syspath_prepend(str(FOLDER))
        patch.chdir(folder)
        main: Any = runpy.run_path(str(FOLDER / "road.py"))["main"]
        main([str(folder), "--epochs", "2"], run)
    sys.modules.pop("make_files", None)
    return folder, said


@pytest.fixture
def road(
    walked: tuple[Path, dict[str, Said]], monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, dict[str, Said]]:
    folder, said = walked
    for name in ("MTL_TASKS", "MTL_ZOO", "MTL_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MTL_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)
    return folder, said


Road = tuple[Path, dict[str, Said]]


def test_the_files_are_the_same_wherever_they_are_made(road: Road, tmp_path: Path) -> None:
    make: Any = runpy.run_path(str(FOLDER / "make_files.py"))["make"]
    make(tmp_path)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in (road[0] / "data").iterdir())
    assert len(made) == 6
    assert all((tmp_path / n).read_bytes() == (road[0] / "data" / n).read_bytes() for n in made)


def test_the_kinds_were_guessed(road: Road) -> None:
    specs = {e.manifest.task["id"]: e.manifest.task for e in open_zoo().entries(kind="adapter")}
    assert {name: task["kind"] for name, task in specs.items()} == {
        "my/intents": "classification",
        "my/moods": "classification",
        "my/ratings": "regression",
        "my/topics": "multilabel",
        "my/visits": "classification",
    }
    assert len(specs["my/intents"]["labels"]) == 60
    assert specs["my/topics"]["labels"] == ["food", "money", "sport", "weather"]


def test_every_new_text_is_answered(road: Road) -> None:
    new = [row["text"] for row in rows(Path("data/new.csv"))]
    assert len(new) == 40
    answers = {name: rows(Path(f"{name}_of_new.csv")) for name in ("intents", "ratings", "topics")}
    answers["moods"] = rows(Path("moods_of_new.csv"))
    assert all([row["text"] for row in found] == new for found in answers.values())
    intents = {row["intent"] for row in rows(Path("data/intents.csv"))}
    assert {row["prediction"] for row in answers["intents"]} <= intents
    for row in answers["intents"]:
        scores = {name: float(row[f"score_{name}"]) for name in intents}
        assert max(scores, key=scores.__getitem__) == row["prediction"]
    assert all(-5 < float(row["prediction"]) < 10 for row in answers["ratings"])
    topics = {"", "food", "money", "sport", "weather"}
    assert {part for row in answers["topics"] for part in row["prediction"].split(";")} <= topics
    assert {row["prediction"] for row in answers["moods"]} <= {"angry", "calm", "happy", "sad"}
    (told,) = [said.out for line, said in road[1].items() if "moods_of_new" in line]
    assert "share of each source" in told


def test_mistakes_are_named(road: Road) -> None:
    (report,) = [said.out for line, said in road[1].items() if "--split dev" in line]
    (entry,) = open_zoo().entries(task="my/intents")
    n = entry.manifest.metrics["dev"]["accuracy"]["n"]
    wrong = round((1 - entry.manifest.metrics["dev"]["accuracy"]["value"]) * n)
    assert f"{n} rows, {wrong} wrong" in report
    shown = report.partition("Most certain mistakes")[2]
    texts = {row["text"]: row["intent"] for row in rows(Path("data/intents.csv"))}
    listed = [line.strip() for line in shown.splitlines() if line.strip() in texts]
    assert len(listed) == min(5, wrong)
    assert Path("errors.html").stat().st_size > 1000


def test_users_stand_on_one_side(road: Road) -> None:
    from mtl.data import load_data
    from mtl.tasks import load_task

    data = load_data(load_task("my/visits.yaml"), protocol="holdout")
    users = {row["text"]: row["user"] for row in rows(Path("data/visits.csv"))}
    sides = {name: {users[t] for t in split.texts[0]} for name, split in data.splits.items()}
    assert sum(len(side) for side in sides.values()) == 30
    assert set.union(*sides.values()) == set(users.values())
    (entry,) = open_zoo().entries(task="my/visits")
    assert entry.manifest.data["fingerprint"] == data.fingerprint


def test_eight_shots_of_a_sorted_file_hold_every_class(road: Road) -> None:
    labels = [row["mood"] for row in rows(Path("data/moods.csv"))]
    assert labels == sorted(labels)
    (entry,) = open_zoo().entries(task="my/moods", method="pfeiffer", seed=8)
    drawn = entry.manifest.data["few_shot"]["rows"]
    assert len(drawn) == 8
    assert {labels[row] for row in drawn} == {"angry", "calm", "happy", "sad"}


def test_what_was_checked_exported_and_sent(road: Road) -> None:
    (composed,) = open_zoo().entries(kind="composition")
    assert len(composed.manifest.parents) == 4
    again = mtl("zoo", "verify", composed.ref, "--tolerance", "0", "--json")
    assert again.code == 0
    proof = json.loads(Path("exported/export.json").read_text())["proof"]
    assert proof["max_logit_difference"] <= 1e-5 < proof["adapter_effect"]
    wanted = {composed.digest, *(parent["digest"] for parent in composed.manifest.parents)}
    for name in ("copied", "theirs"):
        assert {entry.digest for entry in open_zoo(name).entries()} == wanted


def test_its_commands_are_those_of_the_first_page() -> None:
    """Every command of the road is one that the README shows, by name and subcommand."""
    text = (FOLDER / "road.py").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(
        r"^(mtl\.\w+(?: (?:new|check|suite new|verify|copy|pack|unpack))?)", text, re.M
    )
    assert len(lines) > 15
    for line in lines:
        assert f"python -m {line}" in readme, line
