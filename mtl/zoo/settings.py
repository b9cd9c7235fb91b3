"""Settings of entries beside each other: in what do runs differ that look alike?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl.zoo.manifest import Manifest


def reading_of(manifest: Manifest) -> dict[str, Any]:
    """How the task's rows are read and scored, by key: scores of two readings are of two tasks.

    Templates, labels, lengths, metrics; not where the rows come from, which the data's fingerprint
    covers. Entries of before, and strangers', tell the metric alone. Of a joint entry those of all
    its tasks, by task.
    """
    if manifest.kind == "joint":
        listed = manifest.task.get("tasks")
        sections = listed if isinstance(listed, list) else []
        return {str(section["id"]): _reading(section, manifest) for section in sections}
    return _reading(manifest.task, manifest)


def _reading(section: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    told = section.get("spec")
    spec = told if isinstance(told, Mapping) else {}
    said = {"data", *manifest.run_settings}  # what the run's settings say is theirs
    return {
        **{f"task.{key}": value for key, value in spec.items() if key not in said},
        "metric": section["headline"],
    }


def settings_of(manifest: Manifest) -> dict[str, Any]:
    """The settings of the run and of its method.

    The groups of rows that gates go by are told by the first digits of their hash.
    """
    found = {**manifest.run_settings, **method_settings_of(manifest)}
    grouping = manifest.method_settings.get("grouping")
    return {**found, "grouping": str(grouping)[:8]} if grouping else found


def method_settings_of(manifest: Manifest) -> dict[str, Any]:
    """The settings of the method without what a run records of its rows' groups.

    So compositions with gates by one column on other rows, or of other tasks, are of one kind.
    """
    settings = manifest.method_settings
    return {key: value for key, value in settings.items() if key not in ("groups", "grouping")}


def differing(labels: Sequence[Any], settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of the settings behind each label, those in which the ones of that label differ.

    A setting that one of them lacks counts as None.
    """
    alike: dict[Any, list[Mapping[str, Any]]] = {}
    for label, own in zip(labels, settings, strict=True):
        alike.setdefault(label, []).append(own)
    keys = {
        label: [
            key
            for key in dict.fromkeys(key for own in group for key in own)
            if any(own.get(key) != group[0].get(key) for own in group)
        ]
        for label, group in alike.items()
    }
    return [
        {key: own.get(key) for key in keys[label]}
        for label, own in zip(labels, settings, strict=True)
    ]


def settings_text(settings: Mapping[str, Any]) -> str:
    """``lr=0.001, epochs=3``, for a table."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())
