"""Entries of a user's own tasks: every command finds the task again, or says what to give it."""

from __future__ import annotations

import getpass
import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_bench import entries, mtl, refused, write_suite
from hub_bench import hub
from loopback_state import Hub

from mtl.hub import parse_repo, pull, push
from mtl.runs import open_workspace
from mtl.runs.recorded import changed_keys, recorded_spec, sections, task_of
from mtl.zoo import open_zoo

__all__ = ["hub"]  # the fixture
SHORT = ["--max-steps", "2"]


@pytest.fixture(scope="module")
def done(
    tiny: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """Task folder, zoo and cache of runs on two own tasks, named by file; do not change them."""
    root = tmp_path_factory.mktemp("own")
    folder = write_suite(root / "desk" / "mini")
    same, mood = folder / "same.yaml", folder / "mood.yaml"
    places = ["--zoo", root / "zoo", "--runs", root / "runs", "--model", tiny("roberta")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_CACHE", str(root / "cache"))
        line = [*places, *SHORT, "--recipe", folder / "recipes" / "mini.yaml"]
        said = mtl("train", "--task", same, mood, *line, "--protocol", "official")
        assert said.code == 0, said
        said = mtl("compose", "--target", same, "--sources", mood, *line, "--protocol", "official")
        assert said.code == 0, said
        joint = ["--method", "adapter-m", "--protocol", "official"]
        assert mtl("joint", "--task", same, mood, *line, *joint).code == 0
    return folder, root / "zoo", root / "cache"


@pytest.fixture
def desk(
    done: tuple[Path, Path, Path],
    tiny: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Path:
    """The task folder, on the machine of the runs; commands are typed somewhere else."""
    folder, zoo, cache = done
    shutil.copytree(zoo, tmp_path / "zoo")
    monkeypatch.setenv("MTL_MODEL", tiny("roberta"))
    monkeypatch.setenv("MTL_CACHE", str(cache))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return folder


@pytest.fixture
def abroad(desk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The task folder, on a machine that has not run anything."""
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    return desk


KINDS = ["mood/pfeiffer/seed0", "same/scalearn/seed0", "_joint/adapter-m/seed0"]


def test_on_this_machine_nothing_needs_to_be_said(desk: Path, tmp_path: Path) -> None:
    said = mtl("zoo", "verify", *KINDS, "--tolerance", "0", "--json")
    assert said.code == 0, said
    assert all(row["good"] for row in said.json["verified"])
    assert mtl("graph", "attribute", "same/scalearn/seed0", "--json").code == 0
    out = tmp_path / "out"
    line = ["--to", "adapters", "--evaluate", "--width", "4"]
    assert mtl("export", "same/scalearn/seed0", out, *line).code == 0
    line = ["--to", "adapters", "--distill", "--epochs", "1", "--text-rows", "16", "--width", "2"]
    assert mtl("export", "same/scalearn/seed0", tmp_path / "small", *line).code == 0
    assert mtl("report").code == 0


@pytest.mark.parametrize("kind", KINDS)
def test_elsewhere_the_task_file_is_asked_for_and_taken(abroad: Path, kind: str) -> None:
    files = [str(abroad / "same.yaml"), str(abroad / "mood.yaml")]
    refused(mtl("zoo", "verify", kind), "mini/", "--task FILE", "MTL_TASKS", "train: ")
    said = mtl("zoo", "verify", kind, "--task", *files)
    assert said.code == 0, said
    # What agreed once is known here from now on.
    assert mtl("zoo", "verify", kind).code == 0


def test_other_commands_take_it_too(abroad: Path, tmp_path: Path) -> None:
    entry, file = "same/scalearn/seed0", ["--task", abroad / "same.yaml"]
    refused(mtl("graph", "attribute", entry), "--task FILE")
    assert mtl("graph", "attribute", entry, *file, "--json").code == 0
    export = ["export", entry, tmp_path / "out", "--to", "adapters", "--evaluate"]
    refused(mtl(*export), "--task FILE")
    assert not (tmp_path / "out").exists()
    assert mtl(*export, *file).code == 0


def test_mtl_tasks_is_the_other_way(abroad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_TASKS", str(abroad))
    assert mtl("zoo", "verify", *KINDS).code == 0


def test_sources_are_read_by_the_files_that_name_them(abroad: Path) -> None:
    line = ["--target", abroad / "same.yaml", "--sources", abroad / "mood.yaml"]
    protocol = ["--protocol", "official"]
    assert mtl("graph", "suggest", *line, *protocol, "--scores", "tfidf", "logme").code == 0
    recipe = ["--recipe", abroad / "recipes" / "mini.yaml", *SHORT, *protocol]
    said = mtl("compose", *line, *recipe, "--source-seed", "1", "--train-missing", "--json")
    assert said.code == 0, said
    assert [run["task"] for run in said.json["trained"]] == ["mini/mood"]
    both = ["--targets", abroad / "same.yaml", "--sources", abroad / "mood.yaml"]
    measured = mtl("graph", "measure", *both, *recipe, "--json")
    assert measured.code == 0, measured


def test_a_file_that_moved_is_named(desk: Path, tmp_path: Path, tiny: Callable[[str], str]) -> None:
    new = write_suite(tmp_path / "moving")
    recipe = ["--recipe", new / "recipes" / "mini.yaml", "--protocol", "official"]
    assert mtl("train", "--task", new / "shared.yaml", *recipe, *SHORT).code == 0
    away = new.rename(tmp_path / "moved")
    said = mtl("zoo", "verify", "shared/pfeiffer/seed0")
    refused(said, str(new / "shared_test.jsonl"), "moved, or was removed", "--task FILE")
    assert mtl("zoo", "verify", "shared/pfeiffer/seed0", "--task", away / "shared.yaml").code == 0
    assert mtl("zoo", "verify", "shared/pfeiffer/seed0").code == 0


def test_the_task_file_may_change_after_the_run(desk: Path, tmp_path: Path) -> None:
    """The run's record tells the task as it was; where only the new one is known, it is said."""
    new = write_suite(tmp_path / "editing")
    recipe = ["--recipe", new / "recipes" / "mini.yaml", "--protocol", "official"]
    assert mtl("train", "--task", new / "shared.yaml", *recipe, *SHORT).code == 0
    file = new / "shared.yaml"
    file.write_text(file.read_text().replace("max_length: 32", "max_length: 8"))
    assert mtl("zoo", "verify", "shared/pfeiffer/seed0", "--tolerance", "0").code == 0
    said = mtl("zoo", "verify", "shared/pfeiffer/seed0", "--tolerance", "0", "--task", file)
    assert said.code == 1
    assert "max_length was 32, is 8" in said.out
    file.write_text(file.read_text().replace('"{b}"', '"{b} and a house"'))
    said = mtl("zoo", "verify", "shared/pfeiffer/seed0", "--task", file)
    refused(said, "inputs was", "--task FILE")


def test_places_in_a_manifest_are_not_followed(abroad: Path, tmp_path: Path) -> None:
    """A stranger's manifest that names files of ours gets none of them read."""
    from test_verify_cli import reseal

    folder = next(path for path in entries(tmp_path / "zoo") if "mood/pfeiffer" in str(path))
    task = json.loads((folder / "manifest.json").read_text())["task"]
    files = {split: str(abroad / f"mood_{split}.jsonl") for split in ("train", "dev", "test")}
    task["spec"]["data"]["files"] = files
    reseal(folder, task=task)
    said = mtl("zoo", "verify", "mood/pfeiffer/seed0")
    refused(said, "--task FILE", "train: mood_train.jsonl")
    assert str(abroad) not in said.err


def test_what_an_entry_tells_of_its_task(desk: Path, tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    workspace = open_workspace(zoo=zoo.root)
    for key in KINDS:
        entry = zoo.get(key)
        for task in ["mini/same", "mini/mood"] if "_joint" in key else [None]:
            told, found = recorded_spec(entry, task), task_of(entry, workspace, task)
            assert {**told.to_dict(), "data": None} == {**found.to_dict(), "data": None}
            assert not changed_keys(found, sections(entry, task)[0])
            assert all("/" not in name for name in told.data["files"].values())
            assert found.origin == desk / f"{found.name}.yaml"


def test_a_record_that_is_none_is_no_record(desk: Path, tmp_path: Path) -> None:
    for path in (Path(desk).parents[1] / "cache" / "machine" / "tasks").iterdir():
        copy = tmp_path / "cache" / "machine" / "tasks" / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text('{"key": ' if "a" in path.name else '{"key": "x", "spec": []}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_CACHE", str(tmp_path / "cache"))
        refused(mtl("zoo", "verify", "mood/pfeiffer/seed0"), "--task FILE")


def test_nothing_of_the_machine_leaves_it(
    hub: Hub, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Own task, local encoder, absolute data paths: pushed, locked and exported without a place."""
    new = write_suite(tmp_path / "private-folder")
    file = new / "shared.yaml"
    file.write_text(re.sub(r"(\w+): (shared_\w+\.jsonl)", rf"\1: {new}/\2", file.read_text()))
    assert str(new) in file.read_text()
    recipe = ["--recipe", new / "recipes" / "mini.yaml", "--protocol", "official"]
    places = ["--zoo", tmp_path / "zoo", "--runs", tmp_path / "runs"]
    assert mtl("train", "--task", file, *recipe, *SHORT, *places).code == 0
    line = ["--target", file, "--sources", desk / "mood.yaml", *recipe, *SHORT, *places]
    assert mtl("compose", *line).code == 0
    zoo = open_zoo(tmp_path / "zoo")
    repo = parse_repo("ada/zoo")
    push(zoo, [], repo)
    assert mtl("zoo", "lock", "--file", tmp_path / "mtl.lock", "--repo", "ada/zoo").code == 0
    out = tmp_path / "out"
    export = ["--to", "adapters", "--evaluate", *places[:2]]
    assert mtl("export", "shared/scalearn/seed0", out, *export).code == 0
    everything = {
        **hub.files("ada/zoo"),
        **{f"request {number}": body for number, body in enumerate(hub.received)},
        **{str(path): path.read_bytes() for path in out.rglob("*") if path.is_file()},
        "lock": (tmp_path / "mtl.lock").read_bytes(),
        **{
            str(path): path.read_bytes()
            for folder in ("zoo", "zoo.graph")
            for path in (tmp_path / folder).rglob("*.*")
            if path.is_file()
        },
    }
    bound = {str(tmp_path), str(desk.parents[1]), str(Path.cwd()), str(Path.home())} - {"/"}
    bound |= {"private-folder", str(Path(__file__).parents[2]), f"/{getpass.getuser()}/"}
    host = re.compile(rf"\b{re.escape(socket.gethostname())}\b".encode())
    for name, content in everything.items():
        for word in bound:
            assert word.encode() not in content, (name, word)
        # a request holds files in base64, in which a short name may stand by chance
        assert name.startswith("request") or not host.search(content), name
    manifests = [json.loads(content) for name, content in everything.items() if "manifest" in name]
    own = [m for m in manifests if m["task"]["id"] == "mini/shared"]
    assert all(m["task"]["spec"]["data"]["files"]["dev"] == "shared_dev.jsonl" for m in own)
    assert all("--task shared.yaml" in m["command"] for m in own if m["kind"] == "adapter")
    card = hub.files("ada/zoo")[f"{zoo.get('shared/pfeiffer/seed0').ref}/README.md"].decode()
    assert 'from_pretrained("tiny-roberta")' not in card
    assert "from_pretrained(FOLDER_OF_THE_ENCODER)" in card
    assert own[0]["base"]["fingerprint"][:16] in card
    # What came back from the Hub is verified by what this machine knows of the task.
    other = open_zoo(tmp_path / "other")
    pull(other, repo)
    said = mtl("zoo", "verify", "shared/scalearn/seed0", "--zoo", other.root)
    assert said.code == 0, said
