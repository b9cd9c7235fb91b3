"""Settings of entries beside each other: in what do runs differ that look alike?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl.zoo.manifest import Manifest


def settings_of(manifest: Manifest) -> dict[str, Any]:
    """The settings of the run and of its method."""
    return {**manifest.run_settings, **manifest.method_settings}


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
