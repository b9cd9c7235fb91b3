"""Joint entries whose heads, predictions and tasks do not go together: fsck and the door say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack_bench import read, reseal
from safetensors.numpy import save_file
from zoo_bench import manifest, predictions, task

from mtl.zoo import Zoo, check_foreign

WIDTHS = {"toy/two": 2, "toy/three": 3}


def section(**changes: Any) -> dict[str, Any]:
    """The manifest's ``task`` of a joint entry."""
    tasks = [
        {**task(name.partition("/")[2]), "num_outputs": width} for name, width in WIDTHS.items()
    ]
    return {
        **task("_joint"), "kind": "joint", "labels": None, "num_outputs": None,
        "metrics": ["average"], "headline": "average", "tasks": tasks, **changes,
    }  # fmt: skip


def head(folder: Path, name: str, outputs: int, declared: int | None = None) -> None:
    place = folder / "heads" / name
    place.mkdir(parents=True, exist_ok=True)
    labels = outputs if declared is None else declared
    (place / "head_config.json").write_text(f'{{"config": {{"num_labels": {labels}}}}}')
    weights = {"heads.1.weight": np.zeros((outputs, 8), np.float32)}
    save_file(weights, place / "model_head.safetensors")


def answers(folder: Path, name: str, width: int) -> None:
    values = {
        "row": np.arange(4), "label": np.zeros(4, np.int64), "prediction": np.zeros(4, np.int64),
        "scores": np.zeros((4, width), np.float32),
    }  # fmt: skip
    path = folder / "predictions" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(values, path)


@pytest.fixture
def joint(zoo: Zoo) -> Path:
    """A good joint entry of two tasks."""
    data = {**manifest().data, "tasks": {name: manifest().data for name in WIDTHS}}
    described = manifest(kind="joint", task=section(), data=data, method="adapter-m", metrics={})
    ref = zoo.location("tiny-abababab", "toy", "_joint", "adapter-m", 0, described.runhash)
    with zoo.stage(ref) as folder:
        (folder / "adapter_config.json").write_text('{"config": {}}')
        save_file({"w": np.ones((2, 3), np.float32)}, folder / "adapter.safetensors")
        for name, width in WIDTHS.items():
            head(folder, name, width)
            answers(folder, name, width)
        return zoo.commit(folder, ref, described).folder


def test_a_good_joint_entry_passes(joint: Path, zoo: Zoo) -> None:
    assert zoo.fsck() == []
    assert check_foreign(joint) == []


def another_width(folder: Path) -> None:
    head(folder, "toy/three", 2)


def another_declared_width(folder: Path) -> None:
    head(folder, "toy/two", 2, declared=7)


def heads_swapped(folder: Path) -> None:
    head(folder, "toy/two", 3)
    head(folder, "toy/three", 2)


def scores_of_another_width(folder: Path) -> None:
    answers(folder, "toy/two", 9)


def a_task_without_head(folder: Path) -> None:
    for path in (folder / "heads/toy/two").iterdir():
        path.unlink()
    (folder / "heads/toy/two").rmdir()


def a_task_without_predictions(folder: Path) -> None:
    (folder / "predictions/toy/two.safetensors").unlink()


def a_head_of_no_task(folder: Path) -> None:
    head(folder, "toy/four", 2)


def predictions_of_no_task(folder: Path) -> None:
    predictions(folder, [0, 1, 0, 1])
    (folder / "predictions.safetensors").rename(folder / "predictions/toy/four.safetensors")


def no_tasks(folder: Path) -> None:
    reseal(folder, task=section(tasks=[]))


def tasks_that_are_text(folder: Path) -> None:
    reseal(folder, task=section(tasks="toy/two"))


def a_task_twice(folder: Path) -> None:
    tasks = read(folder)["task"]["tasks"]
    reseal(folder, task=section(tasks=[*tasks, tasks[0]]))


def a_task_outside(folder: Path) -> None:
    tasks = read(folder)["task"]["tasks"]
    reseal(folder, task=section(tasks=[*tasks, {**tasks[0], "id": "../../evil"}]))


def a_task_that_is_a_list(folder: Path) -> None:
    tasks = read(folder)["task"]["tasks"]
    reseal(folder, task=section(tasks=[*tasks, {**tasks[0], "id": ["toy"]}]))


def outputs_that_are_none(folder: Path) -> None:
    tasks = read(folder)["task"]["tasks"]
    reseal(folder, task=section(tasks=[{**tasks[0], "num_outputs": "2"}, tasks[1]]))


ATTACKS: list[Callable[[Path], None]] = [
    another_width, another_declared_width, heads_swapped, scores_of_another_width,
    a_task_without_head, a_task_without_predictions, a_head_of_no_task, predictions_of_no_task,
    no_tasks, tasks_that_are_text, a_task_twice, a_task_outside, a_task_that_is_a_list,
    outputs_that_are_none,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_what_does_not_go_together(attack: Callable[[Path], None], joint: Path, zoo: Zoo) -> None:
    attack(joint)
    reseal(joint)
    assert "fit" in {problem.kind for problem in zoo.fsck()}
    assert "fit" in {problem.kind for problem in check_foreign(joint)}


def test_scores_of_another_width_in_an_entry_of_one_task(zoo: Zoo, tmp_path: Path) -> None:
    described = manifest()
    ref = zoo.location("tiny-abababab", "toy", "own", "pfeiffer", 0, described.runhash)
    with zoo.stage(ref) as folder:
        (folder / "adapter_config.json").write_text('{"config": {}}')
        answers(folder, "x", 5)
        (folder / "predictions/x.safetensors").rename(folder / "predictions.safetensors")
        (folder / "predictions").rmdir()
        zoo.commit(folder, ref, described)
    (problem,) = zoo.fsck()
    assert problem.kind == "fit"
    assert "the task has 2 outputs" in problem.message
