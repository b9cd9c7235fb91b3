"""Own tasks beside each other and beside a suite: what they have in common, and what never."""

from __future__ import annotations

import json
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


def test_a_suite_file_over_own_tasks(
    desk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MTL_TASKS")
    files = ["my/same.yaml", "my/mood.yaml"]
    before = hashes("train", "--task", *files, "--max-train-samples", "40")
    new = ["tasks", "suite", "new", "my", "--tasks", *files]
    said = mtl(*new, "--target", "my/same.yaml")
    assert said.code == 0, said
    assert "my/mood: protocol holdout" in said.out
    assert 'tasks: ["same.yaml", "mood.yaml"]' in said.out
    refused(mtl(*new), "my/suite.yaml is there already")
    # what it says to type next works, and the runs are those that there were without a suite
    first, second = (line.split() for line in said.out.splitlines()[-2:])
    assert first[:3] == ["python", "-m", "mtl.train"]
    zoo = ["--zoo", tmp_path / "zoo"]
    after = hashes("train", *first[3:], "--max-train-samples", "40")
    assert after == before
    assert mtl("train", *first[3:], *SHORT, *zoo).code == 0
    composed = mtl(second[2].removeprefix("mtl."), *second[3:], *SHORT, *zoo, "--json")
    assert composed.code == 0, composed
    assert composed.json["runs"][0]["ref"].split("/")[1:3] == ["my", "same"]
    assert mtl("tasks", "ls", "--suite", "my/suite.yaml").code == 0
    assert mtl("train", "--suite", "my/suite.yaml", "--task", "mood", "--dry-run").code == 0
    joint = ["--method", "adapter-m", "--recipe", "none", "--dry-run"]
    assert mtl("joint", "--suite", "my/suite.yaml", *joint).code == 0
    assert mtl("graph", "suggest", "--suite", "my/suite.yaml", "--target", "same", "--scores",
               "tfidf", *zoo).code == 0  # fmt: skip
    # in the folder of one's own tasks it goes by names
    monkeypatch.setenv("MTL_TASKS", str(desk))
    (desk / "suite.yaml").unlink()
    said = mtl("tasks", "suite", "new", "mine", "--tasks", "my/same", "my/mood", "--json")
    assert said.json["suite"]["tasks"] == ["my/same", "my/mood"]
    assert hashes("train", "--suite", "mine", "--max-train-samples", "40") == before
    refused(mtl("tasks", "suite", "new", "mine", "--tasks", "my/same", "--out", "b.yaml"), "mine")


def test_what_a_suite_file_refuses(
    desk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    new = ["tasks", "suite", "new", "mine", "--tasks", "my/same.yaml"]
    refused(mtl(*new, "--protocol", "oficial"), "oficial", "official")
    refused(mtl(*new, "--recipe", "scalern"), "scalearn")
    refused(mtl(*new, "my/same.yaml"), "twice")
    refused(mtl(*new, "--target", "my/mood.yaml"), "my/mood")
    refused(mtl(*new, "--out", "suite.txt"), ".yaml")
    refused(mtl("tasks", "suite", "new", "glue", "--tasks", "my/same.yaml"), "glue already")
    assert not (tmp_path / "mine").exists()


def test_limits_of_own_tasks_are_drawn_and_those_of_written_suites_are_not(
    desk: Path, tmp_path: Path
) -> None:
    """A file sorted by label; the suite that somebody wrote takes its first rows, as ever."""
    rows = sorted(
        (desk / "mood_train.jsonl").read_text().splitlines(), key=lambda r: '"label": 1' in r
    )
    (desk / "mood_train.jsonl").write_text("\n".join(rows) + "\n")
    zoo = ["--zoo", tmp_path / "drawn", *SHORT]
    file = desk / "mood.yaml"
    limit = ["--max-train-samples", "20", "--max-eval-samples", "6"]
    assert mtl("train", "--task", file, *limit, *zoo).code == 0
    (entry,) = open_zoo(tmp_path / "drawn").entries()
    assert entry.manifest.run_settings["sample"] == "drawn"
    notes = entry.manifest.data["notes"]
    assert any(note.startswith("train: 20 of") and "drawn by label" in note for note in notes)
    assert mtl("zoo", "verify", entry.ref, "--zoo", tmp_path / "drawn").code == 0
    own = ["--target", file, "--sources", file, "--method", "average", *limit, *zoo, "--json"]
    assert mtl("compose", *own).code == 0
    few = ["--task", file, "--shots-per-class", "4", "--max-steps", "2"]
    assert mtl("train", *few, "--zoo", tmp_path / "few").code == 0
    (entry,) = open_zoo(tmp_path / "few").entries()
    assert entry.manifest.data["few_shot"]["per_class"] == 4
    assert entry.manifest.data["sizes"]["train"] == 8
    said = mtl("compose", "--target", file, "--sources", "all", "--shots-per-class", "2",
               "--zoo", tmp_path / "few")  # fmt: skip
    refused(said, f"--task {file}", "--shots-per-class 2")
    # a suite that somebody wrote
    said = mtl("train", "--task", "mini/mood", *limit, *zoo, "--zoo", tmp_path / "first")
    assert said.code == 0, said
    (entry,) = open_zoo(tmp_path / "first").entries()
    assert "sample" not in entry.manifest.run_settings
    assert "train: the first 20 rows only" in entry.manifest.data["notes"]
    said = mtl("tasks", "show", file, "--shots", "4", "--split", "train", "-n", "4", "--json")
    assert len({row["label"] for row in said.json["rows"]}) == 2


def test_a_group_by_of_the_command_line(desk: Path, tmp_path: Path) -> None:
    file, zoo = desk / "mood.yaml", ["--zoo", tmp_path / "by", *SHORT]
    rows = [json.loads(line) for line in (desk / "mood_train.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "user": f"u{n % 40}"}) for n, row in enumerate(rows)]
    (desk / "mood_train.jsonl").write_text("\n".join(lines) + "\n")
    plain = hashes("train", "--task", file)
    by = ["--group-by", "user"]
    assert hashes("train", "--task", file, *by) != plain
    assert mtl("train", "--task", file, *by, *zoo).code == 0
    (entry,) = open_zoo(tmp_path / "by").entries()
    assert mtl("zoo", "verify", entry.ref, "--zoo", tmp_path / "by").code == 0
    own = ["--target", file, "--sources", file, "--method", "average", *by, *zoo]
    assert mtl("compose", *own).code == 0
    refused(mtl("train", "--task", file, "--group-by", "usr", *zoo), "'usr'", "Did you mean")
    assert mtl("tasks", "check", file, *by).code in (0, 1)
    draft = ["tasks", "new", "my/again", "--from", desk / "mood_train.jsonl", "--out"]
    said = mtl(*draft, tmp_path / "again.yaml", *by, "--label", "label")
    assert said.code == 0, said
    assert "group_by" in (tmp_path / "again.yaml").read_text()
    refused(mtl(*draft, tmp_path / "b.yaml", "--group-by", "usr"), "--group-by usr")


def test_sources_that_only_the_zoo_knows(desk: Path, stocked: Path) -> None:
    """The task file of an adapter moved: by name the zoo has it, by file it says the name."""
    mood = desk / "mood.yaml"
    line = ["--recipe", "none", "--set", "reduction_factor=4", *SHORT]
    assert mtl("train", "--task", mood, *line).code == 0
    mood.unlink()
    compose = ["compose", "--target", "same", "--suite", "mini", *SHORT]
    for name in ("my/mood", "my/mood:pfeiffer", "my/mood:pfeiffer/seed0"):
        said = mtl(*compose, "--sources", "mini/same", name, "--json")
        assert said.code == 0, said
        assert any("/my/mood/" in ref for ref in said.json["sources"])
    soup = ["--method", "soup", "--set", "weights=1,0", "--json"]
    said = mtl(*compose, "--sources", "my/mood", "mini/same", *soup)
    assert said.json["by_source"] == "weights by source: my/mood 1, mini/same 0"
    refused(
        mtl(*compose, "--sources", "mini/same", mood),
        f"There is no file {mood}",
        "The zoo has adapters of mini/mood, my/mood: name it so.",
    )
    refused(mtl(*compose, "--sources", "my/nothing"), "my/nothing", "all, best, auto or graph")
    texts = ["--target", "same", "--sources", "my/mood", "--scores", "textemb", "--json"]
    said = mtl("graph", "suggest", *texts)
    assert set(said.json["values"]) == {"my/mood"}, said  # the record of the run has its data


def test_a_suite_by_its_file_has_what_its_tasks_were_trained_on_before(
    desk: Path, mini: Path
) -> None:
    """Own adapters trained by --task lie under the tasks' own name, and are found done later."""
    files = [desk / "same.yaml", desk / "mood.yaml"]
    said = mtl("train", "--task", *files, "--recipe", "none", "--json", *SHORT)
    assert said.code == 0, said
    suite = desk.parent / "suites" / "suite.yaml"
    assert mtl("tasks", "suite", "new", "both", "--tasks", *files, "--out", suite).code == 0
    own = ["--suite", suite, "--recipe", "none", *SHORT]
    again = mtl("train", *own, "--json")
    assert [run["status"] for run in again.json["runs"]] == ["skipped", "skipped"]
    line = ["--target", files[0], "--sources", "all", "--method", "average", *own]
    assert mtl("compose", *line).code == 0
    by_name = mtl("report", "--suite", "both", "--json").json
    (row,) = by_name["rows"]  # what was run in it
    assert row["gain"] is not None  # over an own adapter that was not
    shown = mtl("report", "--suite", suite, "--json").json
    assert sorted((row["task"], row["method"]) for row in shown["rows"]) == [
        ("my/mood", "pfeiffer"),
        ("my/same", "average"),
        ("my/same", "pfeiffer"),
    ]
    (table,) = shown["suites"]
    assert (table["suite"], table["tasks"]) == ("both", ["my/mood", "my/same"])
    listed = mtl("zoo", "ls", "--suite", suite, "--json").json["entries"]
    assert len(listed) == 3
    refused(mtl("report", "--suite", suite.with_name("suit.yaml")), "suit.yaml")
