"""Suites: tasks that belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtl.errors import RequestError, unknown
from mtl.tasks.protocols import PROTOCOLS
from mtl.tasks.yamls import catalog, check_keys, find_yaml, known_task, read_yaml

if TYPE_CHECKING:
    from mtl.tasks.spec import TaskSpec


@dataclass(frozen=True)
class Suite:
    """Tasks that are trained and composed together.

    Attributes:
        name: what the user types.
        tasks: ids, in the order of tables.
        model: default encoder (Hub name, folder, or ``demo``).
        recipe: default recipe.
        protocol: how the official splits become train, dev and test.
        target: the task that examples transfer to, if the suite has a natural one.
        notes: a remark for people.
        aliases: other ids of tasks (``superglue/rte`` → ``glue/rte``).
    """

    name: str
    tasks: tuple[str, ...]
    model: str
    recipe: str
    protocol: str
    target: str | None = None
    notes: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)


def list_suites() -> list[str]:
    """Names of all suites, sorted."""
    return sorted(catalog().suites)


def load_suite(name: str) -> Suite:
    """Read a suite by name or by the path of its YAML file.

    Raises:
        RequestError: unknown suite, unknown key, or a task, protocol or recipe that is not there.
    """
    known = catalog()
    path = find_yaml(name, "suite", known.suites)
    content = read_yaml(path)
    keys = ("name", "tasks", "model", "recipe", "protocol", "target", "notes", "aliases")
    check_keys(content, keys, ("tasks", "model", "recipe", "protocol"), str(path))
    aliases = content.get("aliases") or {}
    if not isinstance(aliases, dict):
        raise RequestError(f"{path}: aliases must map one id to another, it is {aliases!r}.")
    tasks = content["tasks"]
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks) or not tasks:
        raise RequestError(f"{path}: tasks must be a list of task ids, it is {tasks!r}.")
    ids = [known_task(str(aliases.get(task, task)), path, known) for task in tasks]
    if len(set(ids)) != len(ids):
        raise RequestError(f"{path}: tasks names a task twice: {', '.join(ids)}.")
    for other in aliases.values():
        known_task(str(other), path, known)
    target = content.get("target")
    if target is not None:
        target = known_task(str(aliases.get(target, target)), path, known)
        if target not in ids:
            raise RequestError(f"{path}: the target {target!r} is none of the suite's tasks.")
    if content["protocol"] not in PROTOCOLS:
        raise RequestError(f"{path}: {unknown('protocol', content['protocol'], PROTOCOLS)}")
    default = path.parent.name if path.stem == "suite" else path.stem
    return Suite(
        name=str(content.get("name") or default),
        tasks=tuple(ids),
        model=str(content["model"]),
        recipe=str(content["recipe"]),
        protocol=str(content["protocol"]),
        target=target,
        notes=str(content.get("notes") or "").strip(),
        aliases={str(key): str(value) for key, value in aliases.items()},
    )


def suite_for(spec: TaskSpec) -> Suite:
    """The suite that a task's id names, or, where nobody wrote one, the tasks of that prefix.

    The latter is for your own data: encoder roberta-base, recipe ``scalearn``, and the protocol
    that :func:`mtl.tasks.default_protocol` finds for the task.

    Raises:
        RequestError: there is a suite file of that name, and it is wrong.
    """
    known = catalog()
    if spec.suite in known.suites:
        return load_suite(spec.suite)
    tasks = {task for task in known.tasks if task.startswith(f"{spec.suite}/")}
    return Suite(
        name=spec.suite,
        tasks=tuple(sorted({*tasks, spec.id})),
        model="roberta-base",
        recipe="scalearn",
        protocol=default_protocol(spec),
    )


def default_protocol(spec: TaskSpec) -> str:
    """The protocol where none is asked for.

    The suite's. Outside of suites: ``official`` for the demo and for files of all three splits,
    ``scalearn`` for train and dev (the dev file is the test, as in the benchmarks), ``holdout`` for
    other files; ``scalearn`` for repositories.
    """
    if spec.suite in list_suites():
        return load_suite(spec.suite).protocol
    files = spec.data.get("files")
    if files is not None:
        dev, test = bool({"validation", "dev"} & {*files}), "test" in files
        return {(True, True): "official", (True, False): "scalearn"}.get((dev, test), "holdout")
    return "official" if "demo" in spec.data else "scalearn"
