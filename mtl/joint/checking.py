"""What ``mtl.zoo verify`` needs to know of a joint entry: its tasks, and what is said over all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtl.joint.plan import AVERAGE
from mtl.runs.verify import CheckedPart
from mtl.zoo.schema import joint_sections

if TYPE_CHECKING:
    from mtl.zoo import Entry


def joint_tasks(entry: Entry) -> list[str]:
    """Ids of the tasks of a joint entry, in the order of its run.

    Raises:
        ZooError: its manifest does not list them, or one whose id cannot be a path.
    """
    manifest = entry.manifest
    return list(joint_sections(manifest.task, manifest.data, entry.ref))


def joint_parts(entry: Entry) -> tuple[CheckedPart, ...]:
    """The tasks of a joint entry as :func:`mtl.runs.verify.verify_entry` takes them.

    Raises:
        ZooError: its manifest does not list them, or says nothing about the data of one.
    """
    manifest = entry.manifest
    return tuple(
        CheckedPart(task, data, f"{task}/")
        for task, (_, data) in joint_sections(manifest.task, manifest.data, entry.ref).items()
    )


def joint_average(headlines: Mapping[str, float]) -> Mapping[str, float]:
    """The mean over tasks of their headline metrics (task id → value)."""
    return {AVERAGE: sum(headlines.values()) / len(headlines)}
