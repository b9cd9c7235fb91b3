"""What a call of the face asks for, as the command line that does the same would say it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.engine.settings import RunSettings
from mtl.errors import RequestError, did_you_mean
from mtl.runs.context import Context, open_context
from mtl.runs.settings import Overrides
from mtl.runs.workspace import open_workspace
from mtl.tasks import TaskSpec
from mtl.zoo import Entry, Zoo

if TYPE_CHECKING:
    from mtl.runs.settings import Trainable
    from mtl.tasks import Suite


def check_settings(
    call: Callable[..., Any], chosen: Trainable, settings: Mapping[str, Any]
) -> None:
    """Refuse keywords that are neither an argument of ``call`` nor a setting, and lists of values.

    Raises:
        RequestError: says what may have been meant.
    """
    own = {item.name for item in fields(chosen.settings)}
    run = {item.name for item in fields(RunSettings)}
    arguments = {name for name in inspect.signature(call).parameters if name != "settings"}
    for key, value in settings.items():
        name = _setting(key).partition(".")[2] or key
        if name not in own | run:
            guess = did_you_mean(key, sorted(arguments | own | run))
            raise RequestError(
                f"{call.__name__}() has no argument {key!r}, and {chosen.name!r} no such setting."
                f"{guess} Settings: {', '.join(sorted(own)) or 'none'}; of every run: "
                f"{', '.join(sorted(run))}."
            )
        if isinstance(value, list | tuple | set):
            raise RequestError(
                f"{key}={value!r}: {call.__name__}() makes one run; call it once for each value."
            )


def context_of(
    suite: Suite,
    settings: Mapping[str, Any],
    typed: Sequence[str],
    tasks: Sequence[str],
    check: Callable[..., Any],
    *,
    model: str | None,
    recipe: str | None,
    protocol: str | None,
    zoo: Zoo | str | Path | None,
    runs: str | Path | None,
    data_root: str | Path | None,
    deterministic: bool,
    track: str | None,
) -> Context:
    """The context of a call; its manifest tells the command that does the same."""
    values = {_setting(key): value for key, value in settings.items()}
    said = [f"{key}={value}" for key, value in values.items()]
    places: dict[str, Any] = {
        "zoo": zoo.root if isinstance(zoo, Zoo) else zoo,
        "runs": runs,
        "data_root": data_root,
        "deterministic": deterministic,
        "track": track,
    }
    files = [*tasks, *map(str, suite.files.values())]
    names = {"model": model, "recipe": recipe, "protocol": protocol}
    words = [*typed, *flags(**names, **places), *(["--set", *said] if said else [])]
    return open_context(
        suite,
        **names,
        overrides=Overrides(values, dict.fromkeys(values, "the call")),
        workspace=open_workspace(
            **places, command=["python", "-m", *words], model=model, tasks=files
        ),
        check=check,
    )


def _setting(key: str) -> str:
    """``run__lr`` → ``run.lr``, since a keyword cannot hold a dot."""
    owner, twice, name = key.partition("__")
    return f"{owner}.{name}" if twice and owner in {"method", "run"} else key


def flags(**values: Any) -> list[str]:
    """Options of a command line; what is None or False is not there."""
    words: list[str] = []
    for key, value in values.items():
        if value is not None and value is not False:
            words.append(f"--{key.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    return words


def task_name(task: str | TaskSpec) -> str:
    if isinstance(task, str | Path):
        return str(task)
    if isinstance(task, TaskSpec):
        if task.origin is None:
            raise RequestError(
                f"Task {task.id!r} was made in memory; write it to a YAML file and name that, so "
                "that its run can be repeated."
            )
        return str(task.origin)
    raise RequestError(f"A task is a name, a YAML file, or what mtl.load_task gives, not {task!r}.")


def source_name(item: str | Entry) -> str:
    """A source as ``--sources`` names it."""
    if isinstance(item, Entry):
        manifest = item.manifest
        if manifest.kind != "adapter":
            raise RequestError(
                f"{item.ref} is of kind {manifest.kind!r}; only adapters of one task are sources."
            )
        return f"{manifest.task['id']}:{manifest.method}/seed{manifest.seed}-{item.digest[:16]}"
    return str(item)
