"""Where a command works: zoo, run folders, cache, data root, device, and the command itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.engine.folder import runs_folder

if TYPE_CHECKING:
    from mtl.tasks import TaskData, TaskSpec
    from mtl.zoo import Zoo


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
    spec: TaskSpec, workspace: Workspace, protocol: str, train: int, evaluation: int
) -> TaskData:
    """The data of a task, read once per command and limit (0 for no limit)."""
    return _load(spec.id, _Key(spec), workspace.data_root, protocol, train, evaluation)


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
    task: str, key: _Key, data_root: str | None, protocol: str, train: int, evaluation: int
) -> TaskData:
    from mtl.tasks import load_data

    return load_data(
        key.spec,
        data_root=data_root,
        protocol=protocol,
        max_train_samples=train or None,
        max_eval_samples=evaluation or None,
    )
