"""Where a command works: zoo, run folders, cache, data root, device, and the command itself."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.engine.folder import runs_folder
from mtl.engine.settings import ROW_SETTINGS, SELECTS
from mtl.errors import RequestError
from mtl.files import DATA_ROOT, user_path
from mtl.tasks.class_weights import BALANCED, check_class_weights
from mtl.zoo.machine import portable_text

if TYPE_CHECKING:
    from mtl.data import TaskData
    from mtl.engine import RunSettings
    from mtl.tasks import TaskSpec
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
        typed: the command line as it was typed, completed by what the environment said; it stays
            on this machine.
        tasks: the task files that the command line names, by which :func:`mtl.train.task_of`
            knows tasks that the catalogue lacks.
        track: the tracker that runs are shown in while they train, or None.
        track_group: what they stand under there, or nothing.
        beside: how many runs go side by side on one encoder; 0: as many as pay.
    """

    zoo: Zoo
    runs: Path
    cache: Path
    data_root: str | None
    deterministic: bool
    typed: str = ""
    tasks: tuple[str, ...] = ()
    track: str | None = None
    track_group: str = ""
    beside: int = 1

    @property
    def command(self) -> str:
        """The command line for manifests and records: without what belongs to this machine."""
        return portable_text(self.typed)


def open_workspace(
    *,
    zoo: str | Path | None = None,
    runs: str | Path | None = None,
    data_root: str | Path | None = None,
    deterministic: bool = False,
    command: Sequence[str] = (),
    model: str | None = None,
    tasks: Sequence[str] = (),
    track: str | None = None,
    track_group: str = "",
    beside: int = 1,
) -> Workspace:
    """Open the workspace; None means environment (``MTL_ZOO``, ``MTL_RUNS``, ``MTL_DATA_ROOT``).

    Nothing is created before something is written.

    Args:
        command: the words of the command line. What a variable of the environment says in place
            of an option (``MTL_MODEL``, ``MTL_DATA_ROOT``) is put behind them.
        model: the base that they name; None: they name none.
        beside: as :attr:`Workspace.beside`.
        tasks: names of tasks on it; those that are files count (:attr:`Workspace.tasks`).

    Raises:
        RequestError: no place for the cache, no such folder, a tracker that is not installed.
    """
    from mtl.engine.tracking import check_tracker
    from mtl.files import cache_folder
    from mtl.tasks.yamls import is_file_name
    from mtl.zoo import open_zoo

    root = data_root or os.environ.get("MTL_DATA_ROOT") or None
    cache = cache_folder()
    if cache is None:
        raise RequestError("There is no home folder for the cache: name one with MTL_CACHE.")
    if root is not None:
        user_path(root, DATA_ROOT)  # said before a model is loaded
    check_tracker(track)
    words = list(command)
    for option, given, name in (
        ("--model", model, "MTL_MODEL"),
        ("--data-root", data_root, "MTL_DATA_ROOT"),
    ):
        if words and not given and os.environ.get(name):
            words += [option, os.environ[name]]
    return Workspace(
        zoo=open_zoo(zoo),
        runs=runs_folder(runs),
        cache=cache / "encoded",
        data_root=str(root) if root else None,
        deterministic=deterministic,
        typed=shlex.join(words),
        tasks=tuple(name for name in tasks if is_file_name(name)),
        track=track,
        track_group=track_group,
        beside=beside,
    )


def load_task_data(
    spec: TaskSpec, workspace: Workspace, protocol: str, settings: RunSettings, gate: str = ""
) -> TaskData:
    """The data of a task as a run's settings cut them, read once per cut until files change.

    Args:
        gate: a column whose values are the rows' groups, empty for none.

    Raises:
        RequestError: they cannot be read, have no metric that ``select`` names, or no classes to
            balance.
    """
    if settings.select not in {*SELECTS, *spec.metrics}:
        raise RequestError(
            f"select={settings.select} names a metric, and {spec.id} has "
            f"{', '.join(spec.metrics)}: choose with --select one of these, loss or metric."
        )
    if settings.class_weights == BALANCED:
        check_class_weights(spec)
    if settings.max_length:
        spec = replace(spec, max_length=settings.max_length)
    if settings.pair and len(spec.inputs) > 1:
        spec = replace(spec, pair=settings.pair)
    if settings.group_by:
        spec = replace(spec, group_by=settings.group_by)
    rows = tuple((key, getattr(settings, key)) for key in ROW_SETTINGS if key != "group_by")
    from mtl.data.origins import marks_of_data

    root = workspace.data_root
    marks = marks_of_data(spec, root)
    return _load(spec.id, _Key(spec), root, protocol, (*rows, ("gate", gate)), marks)


class _Key:
    """Carries a spec (which holds dicts) through a cache; the id beside it tells specs apart."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec

    def __hash__(self) -> int:
        return hash(self.spec.id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Key):
            return False
        # equal specs of two folders read two files
        return (other.spec, other.spec.origin) == (self.spec, self.spec.origin)


@lru_cache(maxsize=32)
def _load(
    task: str,
    key: _Key,
    data_root: str | None,
    protocol: str,
    rows: tuple[tuple[str, Any], ...],
    marks: tuple[tuple[str, int, int], ...],
) -> TaskData:
    from mtl.data import load_data

    return load_data(key.spec, data_root=data_root, protocol=protocol, **dict(rows))
