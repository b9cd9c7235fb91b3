"""Settings of entries as reports name them: with those that entries leave out at their default."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from mtl.engine.settings import LATER, RunSettings
from mtl.zoo.settings import settings_of

if TYPE_CHECKING:
    from mtl.zoo.manifest import Manifest

_USUAL = {
    item.name: item.default
    for item in fields(RunSettings)
    if item.name in LATER and item.name != "sample"  # without a limit it says nothing
}


def all_settings(manifest: Manifest) -> dict[str, Any]:
    """The settings of the run and of its method, also where they have their default."""
    return {**_USUAL, **settings_of(manifest)}
