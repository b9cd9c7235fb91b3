"""Whether a joint entry's heads and predictions are those of the tasks that its manifest names.

A joint entry holds, per task, ``heads/<task id>/`` (a head as an entry of one task has it) and
``predictions/<task id>.safetensors``; ``task.tasks`` of its manifest lists the tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mtl.errors import ZooError
from mtl.zoo.manifest import Manifest
from mtl.zoo.names import MANIFEST, predictions_file, predictions_of, show
from mtl.zoo.problem import Problem
from mtl.zoo.schema import joint_sections

HEADS = "heads/"


def joint_tasks(manifest: Manifest) -> dict[str, Mapping[str, Any]]:
    """Task id → its section, of what a manifest lists; what cannot be a task is left out."""
    listed = manifest.task.get("tasks")
    found: dict[str, Mapping[str, Any]] = {}
    for section in listed if isinstance(listed, list) else ():
        if _is_task(section):
            found[section["id"]] = section
    return found


def task_of(name: str, manifest: Manifest) -> Mapping[str, Any]:
    """The section of the task that a head or a predictions file belongs to; empty for none."""
    if manifest.kind != "joint":
        return manifest.task
    return joint_tasks(manifest).get(_owner(name) or "", {})


def joint_problems(files: Collection[str], manifest: Manifest) -> Iterator[Problem]:
    """Problems of the files of a joint entry by their names: tasks without head, and the reverse.

    Args:
        files: names of all files of the entry.
    """
    tasks = joint_tasks(manifest)
    try:
        joint_sections(manifest.task, manifest.data, "it")
    except ZooError as error:
        yield Problem("fit", MANIFEST, f"does not say what a joint entry has to: {error}", "")
        return
    for task, section in tasks.items():
        outputs = section.get("num_outputs")
        if outputs is not None and (type(outputs) is not int or outputs < 1):
            message = f"gives {show(task)} {show(outputs)} outputs."
            yield Problem("fit", MANIFEST, message, "")
        for name in (
            f"{HEADS}{task}/model_head.safetensors",
            f"{HEADS}{task}/head_config.json",
            predictions_file(task=task),
        ):
            if name not in files:
                message = f"is not in the file table; the manifest names the task {show(task)}."
                yield Problem("fit", name, message, "")
    for name in files:
        owner = _owner(name)
        if owner is not None and owner not in tasks:
            yield Problem("fit", name, "is of no task that the manifest names.", "")


def _owner(name: str) -> str | None:
    """The task of a head or predictions file by its name; None for other files."""
    if name.startswith(HEADS):
        return name.removeprefix(HEADS).rpartition("/")[0]
    found = predictions_of(name)
    if found:
        return found[1]
    return "" if name.startswith("predictions") else None


def _is_task(section: Any) -> bool:
    from mtl.zoo.models import JointTask, check

    try:
        check(JointTask, section, "task")
    except ZooError:
        return False
    return True
