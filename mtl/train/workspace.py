"""Where a command works: zoo, run folders, cache, data root, device, and the command itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.engine.folder import runs_folder

if TYPE_CHECKING:
    from mtl.engine import RunSettings
    from mtl.tasks import TaskData, TaskSpec
    from mtl.zoo import Manifest, Zoo


LIMITS = ("max_train_samples", "max_eval_samples", "max_dev_samples")


@dataclass(frozen=True)
class Workspace:
    """Places and means of a command.

    Attributes:
        zoo: where entries are found and stored.
        runs: folder of run folders.
        cache: folder of encoded data.
        data_root: local mirror of Hub datasets, or None.
        deterministic: only deterministic kernels.
        command: recorded in manifests; what to type to make the entry again.
    """

    zoo: Zoo
    runs: Path
    cache: Path
    data_root: str | None
    deterministic: bool
    command: str


def open_workspace(
    *,
    zoo: str | Path | None = None,
    runs: str | Path | None = None,
    data_root: str | Path | None = None,
    deterministic: bool = False,
    command: str = "",
) -> Workspace:
    """Open the workspace; None means environment (``MTL_ZOO``, ``MTL_RUNS``, ``MTL_DATA_ROOT``).

    Nothing is created before something is written.
    """
    from mtl.zoo import open_zoo

    root = data_root or os.environ.get("MTL_DATA_ROOT") or None
    cache = os.environ.get("MTL_CACHE") or Path.home() / ".cache" / "mtl"
    return Workspace(
        zoo=open_zoo(zoo),
        runs=runs_folder(runs),
        cache=Path(cache) / "encoded",
        data_root=str(root) if root else None,
        deterministic=deterministic,
        command=command,
    )


def load_task_data(
    spec: TaskSpec, workspace: Workspace, protocol: str, settings: RunSettings
) -> TaskData:
    """The data of a task as a run's settings cut them, read once per command and cut."""
    cut = tuple((key, getattr(settings, key) or None) for key in LIMITS)
    drawn = (("shots", settings.shots), ("shot_draw", settings.shot_draw))
    return _load(spec.id, _Key(spec), workspace.data_root, protocol, (*cut, *drawn))


def load_recorded_data(manifest: Manifest, workspace: Workspace) -> TaskData:
    """The data of an entry's task, cut as its run's settings say.

    Raises:
        RequestError: the task is unknown here, or its data cannot be had.
    """
    from mtl.engine import RunSettings
    from mtl.tasks import load_task

    known = {item.name for item in fields(RunSettings)}
    settings = {key: value for key, value in manifest.run_settings.items() if key in known}
    spec = load_task(manifest.task["id"])
    return load_task_data(spec, workspace, manifest.data["protocol"], RunSettings(**settings))


class _Key:
    """Carries a spec (which holds dicts) through a cache; the id beside it tells specs apart."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    def __hash__(self) -> int:
        return hash(self.spec.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.spec == self.spec


@lru_cache(maxsize=32)
def _load(
    task: str, key: _Key, data_root: str | None, protocol: str, cut: tuple[tuple[str, Any], ...]
) -> TaskData:
    from mtl.tasks import load_data

    return load_data(key.spec, data_root=data_root, protocol=protocol, **dict(cut))
