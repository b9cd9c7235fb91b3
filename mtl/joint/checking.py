"""What ``mtl.zoo verify`` needs to know of a joint entry: its tasks, and what is said over all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtl.errors import ZooError
from mtl.joint.plan import AVERAGE
from mtl.train.verify import Part
from mtl.zoo.names import safe_path

if TYPE_CHECKING:
    from mtl.zoo import Entry


def joint_tasks(entry: Entry) -> list[str]:
    """Ids of the tasks of a joint entry, in the order of its run.

    Raises:
        ZooError: its manifest does not list them.
        RequestError: an id that cannot be a path.
    """
    listed = entry.manifest.task.get("tasks")
    listed = listed if isinstance(listed, list) else []
    found = [task.get("id") for task in listed if isinstance(task, dict)]
    ids = [task for task in found if isinstance(task, str)]
    if not ids or len(set(ids)) != len(listed):
        raise ZooError(
            f"{entry.ref}: its manifest's task.tasks does not name every task once; a joint entry "
            "cannot be loaded without."
        )
    for task in ids:
        safe_path(task, "task")
    return ids


def joint_parts(entry: Entry) -> tuple[Part, ...]:
    """The tasks of a joint entry as :func:`mtl.train.verify.verify_entry` takes them.

    Raises:
        ZooError: its manifest does not list them, or says nothing about the data of one.
    """
    sections = entry.manifest.data.get("tasks")
    parts = []
    for task in joint_tasks(entry):
        section = sections.get(task) if isinstance(sections, dict) else None
        if not isinstance(section, dict):
            raise ZooError(f"{entry.ref}: its manifest's data.tasks says nothing about {task}.")
        parts.append(Part(task, section, f"predictions/{task}.safetensors", f"{task}/"))
    return tuple(parts)


def joint_average(headlines: Mapping[str, float]) -> Mapping[str, float]:
    """The mean over tasks of their headline metrics (task id → value)."""
    return {AVERAGE: sum(headlines.values()) / len(headlines)}
