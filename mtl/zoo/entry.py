"""An entry of the zoo as it was read, and what messages say about one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl.zoo.manifest import SCHEMA_VERSION, Manifest
from mtl.zoo.names import shown_command


@dataclass(frozen=True)
class Entry:
    """One stored adapter, composition or joint model.

    Attributes:
        folder: where it lies.
        ref: its posix path relative to the root of the zoo.
        manifest: what it is.
        digest: recomputed from the manifest and its file table (and equal to the stored one).
        files: relative posix name → ``{"sha256", "bytes"}``, of safetensors files with their
            ``"tensors"`` from schema version 2 on (manifest and card are not in it).
        schema_version: that of the ``manifest.json`` on the disk.
    """

    folder: Path
    ref: str
    manifest: Manifest
    digest: str
    files: dict[str, dict[str, Any]]
    schema_version: int = SCHEMA_VERSION


def again_text(entry: Entry) -> str:
    """What to type to make an entry again; a stranger's command line is not offered for that."""
    command = shown_command(entry.manifest.command)
    return f"make it again: {command}" if command else "pull or make it again."


def remedy(ref: str) -> str:
    """What to do about an entry that cannot be read."""
    return f"Remove it (mtl zoo rm {ref}), then run again what made it."
