"""An entry of the zoo as it was read, and what messages say about one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl.errors import ZooError
from mtl.words import printable, shown_command
from mtl.zoo.machine import own_paths, portable_text, recall_command
from mtl.zoo.manifest import SCHEMA_VERSION, Manifest
from mtl.zoo.place import zoo_option


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        """``<Entry demo-330ad112/demo/nli/pfeiffer/seed0-ab12cd34: accuracy test 0.8120>``."""
        test = self.manifest.headline()
        value = None if test is None else test["value"]
        score = "no test score" if value is None else f"test {value:.4f}"
        return printable(f"<Entry {self.ref}: {self.manifest.task['headline']} {score}>")


def drawn(entries: Sequence[Entry]) -> list[Entry]:
    """Those whose weights were drawn; all, where every one began as another entry (``init_from``).

    What is meant by the adapter of a task, unless one is named.
    """
    found = [entry for entry in entries if not entry.manifest.run_settings.get("init_from")]
    return found or list(entries)


def is_cut(entry: Entry) -> bool:
    """Whether an entry was trained on a part of its task's training rows."""
    settings = entry.manifest.run_settings
    return any(settings.get(key) for key in ("max_train_samples", "shots", "shots_per_class"))


def again_text(entry: Entry) -> str:
    """What to type to make an entry again: as it was typed here, else as its manifest says.

    A stranger's command line is offered only where it is one of ours and holds nothing for a
    shell.
    """
    typed = recall_command(entry.manifest.runhash)
    if typed is not None and shown_command(typed[0]):
        command, folder = typed
        here = "" if folder == os.getcwd() else f"cd {shlex.quote(folder)} && "
        return f"make it again: {here}{command}"
    command = shown_command(portable_text(entry.manifest.command)) or ""
    if not command:
        return "pull or make it again."
    away = own_paths(entry.manifest, command)
    said = f" (with your own path of {', '.join(away)})" if away else ""
    return f"pull it again, or make it again{said}: {command}"


def gone(ref: str) -> ZooError:
    """The one error for an entry that another process removed while it was read."""
    return ZooError(
        f"The entry {ref} was removed by another process while it was read. Make or pull it again, "
        "or leave it out."
    )


def remedy(ref: str, root: Path) -> str:
    """What to do about an entry of the zoo at ``root`` that cannot be read."""
    return f"Remove it (python -m mtl.zoo rm {ref}{zoo_option(root)}), then run again what made it."
