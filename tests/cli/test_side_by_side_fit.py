"""What may not go side by side, and what one of several runs must not do to the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_bench import TASKS, mtl
from test_side_by_side import adapters, beside, check_alike, compositions, jobs

from mtl.backbone.beside import UnfitError
from mtl.errors import RunError
from mtl.runs.run import Run
from mtl.zoo import open_zoo


def test_heads_that_read_the_pooler_beside_those_that_do_not(
    mini: Path, tmp_path: Path, tiny: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_MODEL", tiny("bert"))
    heads = ("linear", "pooler_linear", "linear")
    runs = [run for h in heads for run in adapters(tmp_path, "pfeiffer", [0], TASKS[0], head=h)]
    check_alike(runs, tmp_path)


def sources_of(
    tmp_path: Path, method: str, *settings: str, task: str = TASKS[0]
) -> tuple[Path, list[list[str]]]:
    """A zoo with one source, and what :func:`compositions` takes of it."""
    zoo = tmp_path / "".join(settings) / task
    line = ["--suite", "mini", "--task", task, "--method", method, "--epochs", "1"]
    given = [word for item in settings for word in ("--set", item)]
    said = mtl("train", *line, *given, "--zoo", zoo, "--runs", tmp_path / "stage-one")
    assert said.code == 0, said.err
    return zoo, [[task]]


@pytest.mark.parametrize(
    ("composition", "method", "setting", "values"),
    [
        ("scalearn", "pfeiffer", "bottleneck", "8 16"),
        ("fusion", "pfeiffer", "bottleneck", "8 16"),
        ("scalearn", "lora", "rank", "2 4"),
        ("scalearn", "pfeiffer", "activation", "relu gelu"),
        ("fusion", "pfeiffer", "placement", "pfeiffer parallel"),
    ],
)
def test_sources_that_compute_otherwise_do_not_fit(
    composition: str, method: str, setting: str, values: str, mini: Path, tmp_path: Path
) -> None:
    found = [sources_of(tmp_path, method, f"{setting}={value}") for value in values.split()]
    runs = [run for zoo, own in found for run in compositions(tmp_path, zoo, composition, own)]
    with pytest.raises(UnfitError):
        beside(jobs(runs, tmp_path))


def test_sources_that_change_the_base_do_not_fit(mini: Path, tmp_path: Path) -> None:
    """The encoder of the first would answer for the others."""
    change = "train_layer_norm=true"
    found = [sources_of(tmp_path, "tensorized-cp", change, task=task) for task in TASKS[:2]]
    runs = [run for zoo, own in found for run in compositions(tmp_path, zoo, "scalearn", own)]
    with pytest.raises(UnfitError, match="weights of the base that differ"):
        beside(jobs(runs, tmp_path))


def test_one_cannot_be_stored_and_the_others_are(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mtl.runs.executing as executing

    real = executing.store_run

    def store(run: Run, *rest: Any) -> Any:
        if run.seed == 0:
            raise RunError("the disk is full")
        return real(run, *rest)

    monkeypatch.setattr(executing, "store_run", store)
    line = ["--suite", "mini", "--task", "same", "--epochs", "1", "--seeds", "0", "1", "2"]
    said = mtl("train", *line, "--side-by-side", "3", "--json")
    assert said.code == 1
    assert said.err == "error: the disk is full\n"
    assert [row["status"] for row in said.json["runs"]] == ["failed", "done", "done"]


def test_trackers_that_follow_one_run_at_a_time(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["--suite", "mini", "--task", "same", "--epochs", "1", "--track", "tensorboard"]
    together = mtl("train", *line, "--seeds", "0", "1", "--side-by-side", "2", "--json")
    assert (together.code, together.err) == (0, "")
    shown = (tmp_path / "runs" / "tensorboard" / "mini" / "same" / "pfeiffer").iterdir()
    assert sorted(path.name.partition("-")[0] for path in shown) == ["seed0", "seed1"]
    monkeypatch.setattr("mtl.runs.running.SEVERAL", ())  # as W&B, MLflow and Trackio
    said = mtl("train", *line, "--seeds", "2", "3", "--side-by-side", "2", "--json")
    assert said.code == 0
    assert said.err == "note: runs go one by one: tensorboard follows one at a time.\n"
    made = {e.manifest.seed: e.manifest.training for e in open_zoo(mini).entries()}
    beside = {seed: "side_by_side" in told for seed, told in made.items()}
    assert beside == {0: True, 1: True, 2: False, 3: False}


def test_a_plan_goes_by_runs_that_were_trained_as_it_trains(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds of a run side by side are its share of a group's: they tell little of one alone."""
    line = ["train", "--suite", "mini", "--task", "mood", "--epochs", "1"]
    assert mtl(*line, "--seeds", "7", "8", "--side-by-side", "2").code == 0
    ahead = [*line, "--seeds", "1", "2", "--dry-run"]
    by = "12 steps at most, as 2 runs of pfeiffer on mini/mood, side by side, took"
    assert by in mtl(*ahead).out  # nothing else tells
    assert mtl(*line, "--seeds", "9").code == 0
    said = mtl(*ahead)
    assert "12 steps at most, as 1 run of pfeiffer on mini/mood took" in said.out
    assert by in mtl(*ahead, "--side-by-side", "2").out
    (alone,) = (
        entry.manifest.training["seconds"]
        for entry in open_zoo(mini).entries()
        if "side_by_side" not in entry.manifest.training
    )
    told = mtl(*ahead, "--json").json["plan"]["seconds"]
    assert told == pytest.approx(2 * alone, abs=0.1)
    monkeypatch.setattr("mtl.runs.beside.AUTO_HIDDEN", 1)  # a base on which it does not pay
    assert by not in mtl(*ahead, "--side-by-side", "auto").out
