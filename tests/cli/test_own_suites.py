"""Own tasks beside each other and beside a suite: what they have in common, and what never."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cli_bench import mtl, refused, write_suite

from mtl.compose.sources import wanted_sources
from mtl.runs.context import suite_of
from mtl.zoo import open_zoo

SHORT = ["--max-steps", "2"]


@pytest.fixture
def desk(stocked: Path, tmp_path: Path) -> Path:
    """Two tasks of nobody's suite, of which only one has a dev and a test file."""
    source = write_suite(tmp_path / "source")
    folder = tmp_path / "my"
    folder.mkdir()
    for name in ("same", "mood"):
        text = (source / f"{name}.yaml").read_text().replace("mini/", "my/")
        if name == "mood":
            text = text.replace(", dev: mood_dev.jsonl, test: mood_test.jsonl", "")
        (folder / f"{name}.yaml").write_text(text)
    for file in source.glob("*_*"):
        shutil.copy(file, folder)
    return folder


def hashes(command: str, *argv: object) -> dict[str, str]:
    said = mtl(command, *argv, "--dry-run", "--json")
    assert said.code == 0, said
    return {run["task"]: run["runhash"] for run in said.json["runs"]}


def test_neighbours_and_their_order_decide_nothing(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, mood = desk / "same.yaml", desk / "mood.yaml"
    alone = hashes("train", "--task", same) | hashes("train", "--task", mood)
    assert hashes("train", "--task", same, mood) == alone
    assert hashes("train", "--task", mood, same) == alone
    # as tasks of one folder, where each is known by its name
    shutil.copytree(desk, desk.parent / "all" / "my")
    monkeypatch.setenv("MTL_TASKS", str(desk.parent / "all"))
    assert hashes("train", "--task", "my/same", "my/mood") == alone
    assert hashes("train", "--task", "my/mood", "my/same") == alone
    # beside a suite that somebody wrote: it says nothing of tasks that are not its own
    monkeypatch.setenv("MTL_TASKS", str(desk))
    own = ["--task", "my/mood", "--recipe", "scalearn"]
    assert hashes("train", *own, "--suite", "glue") == {"my/mood": alone["my/mood"]}


def test_every_source_has_the_protocol_of_its_own_task(desk: Path) -> None:
    files = [str(desk / "same.yaml"), str(desk / "mood.yaml")]
    splits = {"my/same": "official", "my/mood": "holdout"}
    for order in (files, files[::-1]):
        suite = suite_of(None, order)
        assert suite.tasks == ("my/mood", "my/same")
        found = wanted_sources(["all"], suite, "", own=False, method="pfeiffer")
        assert {source.task: source.protocol for source in found} == splits
    suite = suite_of("mini", [])
    found = wanted_sources(["all", *files], suite, "mini/same", own=True, method="pfeiffer")
    assert {s.task: s.protocol for s in found if s.task in splits} == splits
    assert {s.protocol for s in found if s.task in {"mini/mood", "mini/shared"}} == {"official"}


def test_a_joint_run_splits_every_task_by_its_own_protocol(desk: Path, tmp_path: Path) -> None:
    files = [desk / "same.yaml", desk / "mood.yaml"]
    zoo = ["--zoo", tmp_path / "joint", "--recipe", "none", *SHORT]
    said = mtl("joint", "--task", *files, "--method", "adapter-m", *zoo)
    assert said.code == 0, said
    (entry,) = open_zoo(tmp_path / "joint").entries()
    data = entry.manifest.data
    assert data["protocol"] == "official, holdout"
    assert data["tasks"]["my/same"]["protocol"] == "official"
    assert data["tasks"]["my/mood"]["protocol"] == "holdout"
    assert mtl("zoo", "verify", entry.ref, "--zoo", tmp_path / "joint").code == 0


def test_sources_of_a_suite_for_an_own_target_lie_under_the_targets_suite(
    desk: Path, mini: Path
) -> None:
    target = desk / "same.yaml"
    own = ["--suite", "mini", *SHORT]
    line = ["--target", target, "--sources", "all", *own, "--method", "average"]
    said = mtl("compose", *line)
    refused(said, "--suite mini --method pfeiffer --seeds 0 --model", f"--task {target}")
    said = mtl("compose", *line, "--train-missing", "--json")
    assert said.code == 0, said
    (composed,), (trained,) = said.json["runs"], said.json["trained"]
    assert composed["ref"].split("/")[1:4] == ["my", "same", "average"]
    assert trained["ref"].split("/")[1:4] == ["my", "same", "pfeiffer"]
    said = mtl("report", "--suite", "my", "--json")
    rows = {row["method"]: row for row in said.json["rows"]}
    assert rows["average"]["gain"] is not None
    assert mtl("zoo", "show", "my/same/average/seed0").code == 0
    beside = mtl("report", "--suite", "mini", "--json").json["rows"]
    assert not [row for row in beside if row["task"].startswith("my/")]


def test_an_entry_at_the_old_place_is_found_and_shown(desk: Path, mini: Path) -> None:
    target = desk / "same.yaml"
    line = ["--target", target, "--suite", "mini", "--sources", "all", "--train-missing", *SHORT]
    assert mtl("compose", *line, "--method", "average").code == 0
    # as it was stored before: under the suite of the sources
    zoo = open_zoo(mini)
    before = zoo.get("my/same/average/seed0")
    ref = before.ref.replace("/my/", "/mini/")
    with zoo.stage(ref) as folder:
        for name in before.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(before.folder / name, folder / name)
        zoo.commit(folder, ref, replace(before.manifest, suite="mini"))
    zoo.remove(before.ref)
    said = mtl("compose", *line, "--method", "average", "--json")
    assert [run["status"] for run in said.json["runs"]] == ["skipped"]
    assert [run["ref"] for run in said.json["runs"]] == [ref]
    said = mtl("report", "--suite", "my", "--json")
    assert {row["method"]: row["gain"] is not None for row in said.json["rows"]} == {
        "pfeiffer": False,
        "average": True,
    }
    shown = mtl("zoo", "show", "my/same/average/seed0")
    assert shown.code == 0, shown
    listed = mtl("zoo", "ls", "--suite", "my", "--json").json["entries"]
    assert ref in {row["ref"] for row in listed}
