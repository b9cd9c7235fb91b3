"""``--track``: what trackers are told of a run, and that they decide nothing."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, entries, mtl, process, refused
from study_bench import SHORT, write_study

import mtl as face
from mtl.engine import tracking
from mtl.engine.tracking import Tracker, _flat, check_tracker
from mtl.errors import RequestError
from mtl.study import Places, execute_task, plan_study, read_study
from mtl.study.work import Task

TRAIN = ("train", "--task", "mini/mood", "--suite", "mini")


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Curve → (step, value) of TensorBoard's files in ``folder``."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {
        name: [(point.step, point.value) for point in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


def test_tensorboard_shows_every_evaluation_and_changes_nothing(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = mtl(*TRAIN, "--track", "tensorboard", "--json")
    assert said.code == 0, said
    (run,) = said.json["runs"]
    (path,) = (tmp_path / "runs").glob("*/events.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["step"] for event in events] == [6, 12]
    name = f"mini/mood/pfeiffer/seed0-{path.parent.name[:8]}"
    found = curves(tmp_path / "runs" / "tensorboard" / name)
    assert found.keys() == {"train/loss", "dev/loss", "dev/accuracy", "lr", "epoch"}
    for curve, of in (
        ("train/loss", lambda event: event["train_loss"]),
        ("dev/loss", lambda event: event["dev_loss"]),
        ("dev/accuracy", lambda event: event["metrics"]["accuracy"]),
        ("lr", lambda event: event["lr"]),
    ):
        expected = [(event["step"], pytest.approx(of(event), rel=1e-6)) for event in events]
        assert found[curve] == expected
    # lr 3e-3 falls to 0 over 12 steps without warm-up; the last step taken before is the k-th
    assert [event["lr"] for event in events] == pytest.approx([3e-3 * 7 / 12, 3e-3 / 12])
    (written,) = (tmp_path / "runs" / "tensorboard").rglob("hparams.yml")
    assert "run.lr: 0.003" in written.read_text()

    # the same run without it, by the face with it: the same entry
    monkeypatch.setenv("MTL_ZOO", str(tmp_path / "second"))
    monkeypatch.setenv("MTL_RUNS", str(tmp_path / "second-runs"))
    plain = mtl(*TRAIN, "--json").json["runs"][0]
    assert plain["status"] == "done"
    assert plain["digest"] == run["digest"]
    third = {"zoo": tmp_path / "third", "runs": tmp_path / "third-runs"}
    again = face.train_adapter("mini/mood", suite="mini", track="tensorboard", **third)
    assert again.digest == run["digest"]
    assert "--track tensorboard" in again.manifest.command
    assert curves(tmp_path / "third-runs" / "tensorboard" / name) == found


def test_compositions_and_joint_runs_are_tracked(stocked: Path, tmp_path: Path) -> None:
    face.compose_adapters(TARGET, suite="mini", track="tensorboard", epochs=1)
    face.train_joint(
        ["mini/mood", "mini/shared"], suite="mini", method="adapter-m", track="tensorboard"
    )
    folder = tmp_path / "runs" / "tensorboard" / "mini"
    (composed,) = (folder / "same" / "scalearn").iterdir()
    assert [step for step, _ in curves(composed)["dev/f1"]] == [6]
    (joint,) = (folder / "_joint" / "adapter-m").iterdir()
    assert {"dev/mini/mood/accuracy", "dev/mini/shared/pearson"} <= curves(joint).keys()


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_loaded(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tracking.find_spec
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "wandb" else real(name))
    said = mtl(*TRAIN, "--track", "wandb", "--model", "no/such-model")
    refused(said, "--track wandb needs the package wandb", "pip install wandb")
    check_tracker("tensorboard")
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    refused(mtl(*TRAIN, "--track", "trackio"), "pip install trackio 'huggingface_hub<1'")
    refused(mtl(*TRAIN, "--track", "tensorbord"), "tracker", "Did you mean 'tensorboard'?")
    with pytest.raises(RequestError, match="pip install wandb"):
        face.train_adapter("mini/mood", suite="mini", track="wandb")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A tracker of ``accelerate`` in the place of Trackio; the list tells what it was told."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

    told: list[Any] = []

    class StandIn(GeneralTracker):
        name = "trackio"
        requires_logging_directory = False
        tracker = None

        def __init__(self, project: str, **named: Any) -> None:
            told.append((project, named))

        def start(self) -> None:
            if "cannot start" in told:
                raise OSError("no account")

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            told.append(values)

        def log(self, values: dict[str, Any], step: int | None = None, **named: Any) -> None:
            told.append((step, values))
            if "fails" in told:
                raise ConnectionError("gone")

        def finish(self) -> None:
            told.append("finished")

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "trackio", StandIn)
    monkeypatch.setattr(tracking, "find_spec", lambda name: True)
    return told


def test_every_tracker_gets_settings_and_an_end(mini: Path, stand_in: list[Any]) -> None:
    assert mtl(*TRAIN, "--track", "trackio").code == 0
    (project, named), settings, first, second, end = stand_in
    assert project == "mtl"
    assert named["name"].startswith("mini/mood/pfeiffer/seed0-")
    assert (settings["task"], settings["method"], settings["seed"]) == ("mini/mood", "pfeiffer", 0)
    assert settings["settings.reduction_factor"] == 4
    assert (first[0], second[0], end) == (6, 12, "finished")


def study_of_two(folder: Path) -> Path:
    return write_study(folder, "joint", "compose", name="two", seeds=[0, 1], tasks=["mood"])


def test_the_runs_of_a_study_stand_under_its_name(
    mini: Path, tmp_path: Path, stand_in: list[Any]
) -> None:
    plan = plan_study(
        read_study(str(study_of_two(tmp_path))), Places(track="trackio", track_group="two")
    )
    for key, node in plan.nodes.items():
        assert execute_task(Task(key, node.cell, plan.desk.places), plan.desk).status == "done"
    begun = [item for item in stand_in if isinstance(item, tuple) and isinstance(item[0], str)]
    assert [project for project, _ in begun] == ["two", "two"]
    names = [named["name"].partition("-")[0] for _, named in begun]
    assert names == ["mini/mood/pfeiffer/seed0", "mini/mood/pfeiffer/seed1"]


def test_a_study_in_tensorboard_has_the_entries_that_it_has_without(
    mini: Path, tmp_path: Path
) -> None:
    path = study_of_two(tmp_path)
    out, err = process(
        "study", "run", path, "--track", "tensorboard", "--workers", 1, "--json"
    ).communicate(timeout=280)
    runs = json.loads(out)["runs"]
    assert [run["status"] for run in runs] == ["done", "done"], err
    for run in runs:
        name = f"mini/mood/pfeiffer/seed{run['seed']}-{run['runhash'][:8]}"
        found = curves(tmp_path / "runs" / "tensorboard" / "two" / name)
        assert [step for step, _ in found["dev/accuracy"]] == [2, 4]
    places = ["--zoo", tmp_path / "plain", "--runs", tmp_path / "plain-runs"]
    line = [*TRAIN, "--seeds", 0, 1, "--set", *(f"{k}={v}" for k, v in SHORT.items()), *places]
    plain = mtl(*line, "--json").json["runs"]
    assert [run["digest"] for run in plain] == [run["digest"] for run in runs]


def test_a_tracker_that_fails_is_left_alone(
    mini: Path, stand_in: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.append("fails")
    with caplog.at_level(logging.WARNING, "mtl"):
        assert mtl(*TRAIN, "--track", "trackio").code == 0
    assert [record.message for record in caplog.records] == [
        "tracker trackio failed, the run goes on without it: ConnectionError: gone"
    ]
    assert "finished" not in stand_in
    assert len(entries(mini)) == 1


def test_a_tracker_that_does_not_start_stops_the_run(mini: Path, stand_in: list[Any]) -> None:
    stand_in.append("cannot start")
    refused(
        mtl(*TRAIN, "--track", "trackio"), "Tracker trackio does not start: OSError: no account"
    )
    assert entries(mini) == []
    assert "finished" not in stand_in


def test_a_resumed_run_takes_back_what_was_said_after_its_resume_point(tmp_path: Path) -> None:
    from accelerate import Accelerator

    Accelerator()  # as a run's device does
    event = {"train_loss": 1.0, "dev_loss": 2.0, "metrics": {"f1": float("nan")}, "epoch": 1}
    for done, steps in ((0, (2, 4, 6)), (3, (4, 6, 8))):
        with tracking.tracking("tensorboard", tmp_path, "a/run", "0" * 64, {}) as tracker:
            assert isinstance(tracker, Tracker)
            tracker.begin(done)
            for step in steps:
                tracker.log({**event, "lr": 0.1 * (done + 1), "step": step})
        time.sleep(1.1)  # TensorBoard orders files by the second of their names
    found = curves(tmp_path / "tensorboard" / "a" / "run")
    assert [step for step, _ in found["lr"]] == [2, 4, 6, 8]
    assert found["lr"][1][1] == pytest.approx(0.4)
    assert "dev/f1" not in found


def test_settings_are_recorded_flat() -> None:
    nested = {"a": 1, "b": {"c": None, "d": [1, 2], "e": True}}
    assert _flat(nested) == {"a": 1, "b.d": "[1, 2]", "b.e": True}
