"""``mtl.zoo verify``: an entry answers today as it says it did, or the difference is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_bench import TARGET, entries, mtl, refused
from safetensors.numpy import load_file, save_file

from mtl.data import Passes
from mtl.zoo import Manifest, open_zoo
from mtl.zoo.check import file_table
from mtl.zoo.manifest import record


def reseal(folder: Path, **changes: Any) -> None:
    """What somebody who wants to look better would do: change, and make all hashes right."""
    value = {**json.loads((folder / "manifest.json").read_text()), **changes}
    described = Manifest.from_dict({k: v for k, v in value.items() if k not in {"digest", "files"}})
    (folder / "manifest.json").write_text(json.dumps(record(described, file_table(folder, "x"))))


def test_adapters_and_compositions_are_what_they_say(stocked: Path) -> None:
    assert mtl("compose", "--target", TARGET, "--max-steps", "3").code == 0
    refs = [path.relative_to(stocked).as_posix() for path in entries(stocked)]
    before = {entry.ref: entry.digest for entry in open_zoo(stocked).entries()}
    said = mtl("zoo", "verify", *refs, "--tolerance", "0", "--json")
    assert said.code == 0, said
    rows = said.json["verified"]
    assert len(rows) == 4
    for row in rows:
        assert row["good"]
        assert row["max_logit_difference"] == 0
        assert row["equal_predictions"] == 1
        assert row["n"] == 40
        assert all(pair["stored"] == pair["again"] for pair in row["metrics"]["test"].values())
    after = open_zoo(stocked).entries()
    assert {entry.ref: entry.digest for entry in after} == before
    assert all("created" in entry.manifest.verified for entry in after)
    assert open_zoo(stocked).fsck() == []
    said = mtl("zoo", "verify", refs[0])
    assert "The entry is what it says." in said.out


def test_the_passes_are_those_of_then(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last digits depend on how many examples, how much padded, share a pass."""
    import mtl.runs.verify as verify

    line = ["--suite", "mini", "--task", "mood", "--max-steps", "4"]
    assert mtl("train", *line, "--set", "eval_batch_size=3").code == 0
    sizes = []
    real = verify.evaluate

    def spy(model: Any, data: Any, device: Any, size: Passes) -> Any:
        sizes.append(size)
        return real(model, data, device, size)

    monkeypatch.setattr(verify, "evaluate", spy)
    said = mtl("zoo", "verify", "mood/pfeiffer/seed0", "--tolerance", "0")
    assert said.code == 0, said
    assert set(sizes) == {Passes(tokens=2048, rows=3)}


def test_the_threads_are_those_of_then(stocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So are they on how many threads: sums are cut into as many pieces."""
    import torch

    from mtl.engine import device

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(device, "_now", torch.get_num_threads())
    monkeypatch.setattr(device, "usable_cores", lambda: 2)
    folder = next(path for path in entries(stocked) if "mood" in str(path))
    training = json.loads((folder / "manifest.json").read_text())["training"]
    before = torch.get_num_threads()
    assert training["threads"] == before == 1
    taken = []
    try:
        for threads in (2, 3):  # three are more than this machine has
            reseal(folder, training={**training, "threads": threads})
            assert mtl("zoo", "verify", "mood/pfeiffer/seed0").code == 0
            taken.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert taken == [2, 1]


def test_models_side_by_side_answer_each_in_its_threads(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads are the process': another model that was loaded since had others."""
    import torch

    import mtl as face
    from mtl.engine import device

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(device, "_now", torch.get_num_threads())
    monkeypatch.setattr(device, "usable_cores", lambda: 2)
    folder = next(path for path in entries(stocked) if "mood" in str(path))
    training = json.loads((folder / "manifest.json").read_text())["training"]
    before = torch.get_num_threads()
    try:
        one = face.load("mood/pfeiffer/seed0")
        reseal(folder, training={**training, "threads": 2})
        two = face.load("mood/pfeiffer/seed0")
        taken = []
        for model in (one, two, one):
            model.predict(["a cat"])
            taken.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert taken == [1, 2, 1]


def test_better_metrics_than_the_predictions_give(stocked: Path) -> None:
    folder = next(path for path in entries(stocked) if "mood" in str(path))
    metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
    metrics["test"]["accuracy"]["value"] = 0.123
    reseal(folder, metrics=metrics)
    said = mtl("zoo", "verify", "mood/pfeiffer/seed0")
    assert said.code == 1
    assert "its manifest says 0.123000" in said.out
    assert "The entry is not what it says." in said.out


def test_other_weights_under_the_same_predictions(stocked: Path) -> None:
    folder = next(path for path in entries(stocked) if "mood" in str(path))
    path = folder / "model_head.safetensors"
    tensors = {name: value + 1 for name, value in load_file(path).items()}
    save_file(tensors, path)
    verified = json.loads((folder / "manifest.json").read_text())["verified"]
    reseal(folder)
    said = mtl("zoo", "verify", "mood/pfeiffer/seed0", "--json")
    assert said.code == 1
    (row,) = said.json["verified"]
    assert row["max_logit_difference"] > 0.1
    assert "scores differ" in row["problems"][0]
    assert json.loads((folder / "manifest.json").read_text())["verified"] == verified


def test_predictions_of_other_examples(stocked: Path) -> None:
    folder = next(path for path in entries(stocked) if "mood" in str(path))
    values = load_file(folder / "predictions.safetensors")
    save_file({**values, "row": values["row"] + np.int64(1)}, folder / "predictions.safetensors")
    reseal(folder)
    said = mtl("zoo", "verify", "mood/pfeiffer/seed0")
    assert said.code == 1
    assert "rows, or others" in said.out


def test_what_cannot_be_verified_says_why(stocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(mtl("zoo", "verify", "mood/pfeiffer/seed0", "--model", "demo"), "was trained on")
    refused(mtl("zoo", "verify", "no/such/entry"), "There is no entry")
    refused(mtl("zoo", "verify", "mood/pfeiffer/seed0", "--tolerance", "-1"), "--tolerance")
    monkeypatch.delenv("MTL_MODEL")
    refused(mtl("zoo", "verify", "mood/pfeiffer/seed0"), "--model FOLDER")


def test_data_that_have_changed_are_named(
    stocked: Path, suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.runs import workspace

    other = shutil.copytree(suite_folder, tmp_path / "other" / "mini")
    path = other / "mood_test.jsonl"
    path.write_text(path.read_text().replace("happy", "good", 1))
    monkeypatch.setenv("MTL_TASKS", str(other))
    workspace._load.cache_clear()
    said = mtl("zoo", "verify", "mood/pfeiffer/seed0")
    workspace._load.cache_clear()
    refused(said, "mini/mood (test)", "fingerprint", "--task FILE")
    again = ["--task", suite_folder / "mood.yaml"]
    assert mtl("zoo", "verify", "mood/pfeiffer/seed0", *again).code == 0


def joint(zoo: Path, method: str = "adapter-m") -> Path:
    """The folder of a joint entry of the three tasks."""
    said = mtl("joint", "--suite", "mini", "--epochs", "1", "--method", method, "--json")
    assert said.code == 0, said
    return zoo / said.json["runs"][0]["ref"]


def test_joint_entries_are_what_they_say(mini: Path) -> None:
    refs = [
        joint(mini, method).relative_to(mini).as_posix()
        for method in ("adapter-m", "hyperformer++")
    ]
    said = mtl("zoo", "verify", *refs, "--tolerance", "0", "--json")
    assert said.code == 0, said
    for row, ref in zip(said.json["verified"], refs, strict=True):
        assert (row["ref"], row["good"], row["n"]) == (ref, True, 3 * 40)
        assert (row["max_logit_difference"], row["equal_predictions"]) == (0, 1)
        told = open_zoo(mini).get(ref).manifest
        assert set(row["metrics"]["test"]) == set(told.metrics["test"])
        assert {"average", "mini/same/f1", "mini/mood/accuracy"} < set(row["metrics"]["test"])
        assert "created" in told.verified
        assert told.verified["metrics"]["average"] == pytest.approx(
            told.metrics["test"]["average"]["value"]
        )
    assert open_zoo(mini).fsck() == []


def test_one_wrong_head_metric_or_average_of_a_joint_entry_is_found(mini: Path) -> None:
    folder = joint(mini)
    original = json.loads((folder / "manifest.json").read_text())["metrics"]
    for name, message in (
        ("mini/mood/accuracy", "mini/mood: its stored predictions give accuracy"),
        ("average", "average on test is"),
        ("mini/other/accuracy", "mini/other/accuracy is none of its tasks"),
    ):
        metrics = json.loads(json.dumps(original))
        metrics["test"][name] = {"value": 0.123, "stderr": None, "n": 40}
        reseal(folder, metrics=metrics)
        said = mtl("zoo", "verify", "_joint/adapter-m/seed0", "--json")
        assert said.code == 1
        (problem,) = said.json["verified"][0]["problems"]
        assert message in problem
    reseal(folder, metrics=original)
    path = folder / "heads" / "mini" / "shared" / "model_head.safetensors"
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)
    reseal(folder)
    (row,) = mtl("zoo", "verify", "_joint/adapter-m/seed0", "--json").json["verified"]
    assert "mini/shared: its scores differ" in row["problems"][0]


def test_a_joint_manifest_without_its_tasks_is_one_message(mini: Path) -> None:
    folder = joint(mini)
    value = json.loads((folder / "manifest.json").read_text())
    for task, data, message in (
        ({"tasks": None}, {}, "task.tasks"),
        ({"tasks": [{"id": "../../x"}]}, {}, "task.tasks[0]"),
        ({"tasks": [{**value["task"]["tasks"][0], "id": "../../x"}]}, {}, "../../x"),
        ({}, {"tasks": {}}, "data.tasks"),
    ):
        reseal(folder, task={**value["task"], **task}, data={**value["data"], **data})
        said = mtl("zoo", "verify", "_joint/adapter-m/seed0")
        refused(said, message, code=said.code)
        assert said.code in {1, 2}


def test_joint_entries_are_listed_under_each_of_their_tasks(stocked: Path) -> None:
    ref = joint(stocked).relative_to(stocked).as_posix()
    zoo = open_zoo(stocked)
    for task in ("mini/mood", "mood"):
        kinds = [entry.manifest.kind for entry in zoo.entries(task=task)]
        assert sorted(kinds) == ["adapter", "joint"]
        assert ref not in [entry.ref for entry in zoo.entries(task=task, kind="adapter")]
        rows = mtl("zoo", "ls", "--task", task, "--json").json["entries"]
        assert ref in [row["ref"] for row in rows]
    assert zoo.entries(task="mini/none") == []


def test_an_entry_that_is_removed_while_it_is_verified(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``rm`` beside ``verify``: one message, at whatever step the files go away."""
    import mtl.backbone as backbone
    import mtl.runs.loading as loading
    import mtl.runs.verify as verifying

    entry = open_zoo(stocked).entries(task="mini/mood")[0]
    kept = stocked.with_name("kept")
    shutil.copytree(entry.folder, kept)
    for module, step in (
        (verifying, "check_base"),
        (verifying, "read_predictions"),
        (loading, "attach_stored"),
        (backbone, "load_head"),
        (verifying, "evaluate"),
    ):
        real = getattr(module, step)

        def removed(*args: object, _real: Any = real, **named: object) -> Any:
            if entry.folder.is_dir():
                open_zoo(stocked).remove(entry.ref)
            return _real(*args, **named)

        with monkeypatch.context() as patch:
            patch.setattr(module, step, removed)
            said = mtl("zoo", "verify", entry.ref)
        refused(said, f"{entry.ref} was removed", code=1)
        assert not entry.folder.exists(), step
        shutil.copytree(kept, entry.folder)
    assert open_zoo(stocked).fsck() == []
