"""Suites: tasks that belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, unknown
from mtl.files import user_path
from mtl.tasks.protocols import PROTOCOLS
from mtl.tasks.yamls import (
    Catalog,
    catalog,
    check_keys,
    find_yaml,
    is_file_name,
    known_task,
    read_yaml,
)

if TYPE_CHECKING:
    from mtl.tasks.spec import TaskSpec

SAMPLES = ("first", "drawn")
"""How limits take rows: the head of a split, or a draw by class (``mtl.data.sampling``)."""


@dataclass(frozen=True)
class Suite:
    """Tasks that are trained and composed together.

    Attributes:
        name: what the user types.
        tasks: ids, in the order of tables.
        model: default encoder (Hub name, folder, or ``demo``).
        recipe: default recipe.
        protocol: how the official splits become train, dev and test; None: of each task as is its
            own (:func:`default_protocol`).
        target: the task that examples transfer to, if the suite has a natural one.
        notes: a remark for people.
        aliases: other ids of tasks (``superglue/rte`` → ``glue/rte``).
        sample: how limits take rows: ``first``, as in the papers, or ``drawn`` by class.
        files: ids of tasks that are known by their files alone → these.
        origin: the suite's own file; None where nobody wrote one.
    """

    name: str
    tasks: tuple[str, ...]
    model: str
    recipe: str
    protocol: str | None
    target: str | None = None
    notes: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    sample: str = "first"
    files: Mapping[str, Path] = field(default_factory=dict)
    origin: Path | None = None

    def protocol_of(self, spec: TaskSpec) -> str:
        """How the data of ``spec`` are split: by the suite's protocol or, outside, by its own.

        No other task has a say, so a run is the same whatever runs beside it.
        """
        return (spec.id in self.tasks and self.protocol) or default_protocol(spec)

    def sample_of(self, task: str) -> str:
        """How limits take rows of a task: as its suite says, of tasks of your own ``drawn``."""
        if task in self.tasks:
            return self.sample
        suite = task.split("/")[0]
        return load_suite(suite).sample if suite in list_suites() else "drawn"

    def home_of(self, task: str) -> str:
        """The suite that entries of the task with this id lie under: this one if it is in it."""
        return self.name if task in self.tasks else task.split("/")[0]

    @property
    def argument(self) -> str | None:
        """How a command line names the suite; None where nobody wrote one."""
        if self.origin is None:
            return None
        return self.name if self.name in catalog().suites else str(self.origin)


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
    return read_suite(read_yaml(path), path, known)


def read_suite(content: Mapping[str, Any], path: Path, known: Catalog) -> Suite:
    """The suite that the keys of a YAML file say; ``path`` is where it stands, or will stand.

    Raises:
        RequestError: as :func:`load_suite`.
    """
    keys = (
        *("name", "tasks", "model", "recipe", "protocol", "sample", "target", "notes", "aliases"),
    )
    check_keys(content, keys, ("tasks", "model", "recipe"), str(path))
    aliases = content.get("aliases") or {}
    if not isinstance(aliases, dict):
        raise RequestError(f"{path}: aliases must map one id to another, it is {aliases!r}.")
    tasks = content["tasks"]
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks) or not tasks:
        raise RequestError(f"{path}: tasks must be a list of task ids, it is {tasks!r}.")
    files: dict[str, Path] = {}
    ids = [_member(str(aliases.get(task, task)), path, files, known) for task in tasks]
    if len(set(ids)) != len(ids):
        raise RequestError(f"{path}: tasks names a task twice: {', '.join(ids)}.")
    for other in aliases.values():
        known_task(str(other), path, known)
    target = content.get("target")
    if target is not None:
        target = str(aliases.get(target, target))
        target = target if target in files else _member(target, path, files, known)
        if target not in ids:
            raise RequestError(f"{path}: the target {target!r} is none of the suite's tasks.")
    protocol = content.get("protocol")
    if protocol is not None and protocol not in PROTOCOLS:
        raise RequestError(f"{path}: {unknown('protocol', protocol, PROTOCOLS)}")
    sample = content.get("sample", "first")
    if sample not in SAMPLES:
        raise RequestError(f"{path}: {unknown('value of sample', str(sample), SAMPLES)}")
    default = path.parent.name if path.stem == "suite" else path.stem
    return Suite(
        name=str(content.get("name") or default),
        tasks=tuple(ids),
        model=str(content["model"]),
        recipe=str(content["recipe"]),
        protocol=None if protocol is None else str(protocol),
        target=target,
        notes=str(content.get("notes") or "").strip(),
        aliases={str(key): str(value) for key, value in aliases.items()},
        sample=str(sample),
        files=files,
        origin=path,
    )


def _member(task: str, path: Path, files: dict[str, Path], known: Catalog) -> str:
    """The id of ``task``, a name or a file beside ``path``; files that no name finds are noted."""
    if not is_file_name(task):
        return known_task(task, path, known)
    file = (path.parent / user_path(task, f"tasks of {path}")).resolve()
    found = read_yaml(file).get("id")
    if not isinstance(found, str):
        raise RequestError(f"{path}: tasks names {task}, which is no task: it has no id.")
    _note(found, file, files, known)
    return found


def _note(task: str, file: Path, files: dict[str, Path], known: Catalog) -> None:
    found = known.tasks.get(task)
    if found is None or found.resolve() != file.resolve():
        files[task] = file


def suite_for(spec: TaskSpec, others: Iterable[TaskSpec] = ()) -> Suite:
    """The suite that a task's id names, or, where nobody wrote one, the tasks of that prefix.

    The latter is for your own data: encoder roberta-base, recipe ``scalearn``, and of every task
    the protocol that :func:`mtl.tasks.default_protocol` finds for it.

    Args:
        others: tasks that are trained beside it; those of its prefix belong to it, too.

    Raises:
        RequestError: there is a suite file of that name, and it is wrong.
    """
    known = catalog()
    if spec.suite in known.suites:
        return load_suite(spec.suite)
    members = [spec, *(other for other in others if other.suite == spec.suite)]
    files: dict[str, Path] = {}
    for member in members:
        if member.origin is not None:
            _note(member.id, member.origin, files, known)
    tasks = {task for task in known.tasks if task.startswith(f"{spec.suite}/")}
    return Suite(
        name=spec.suite,
        tasks=tuple(sorted({*tasks, *(member.id for member in members)})),
        model="roberta-base",
        recipe="scalearn",
        protocol=None,
        sample="drawn",
        files=files,
    )


def default_protocol(spec: TaskSpec) -> str:
    """The protocol where none is asked for.

    The suite's, where it says one. Else ``official`` for the demo and for files of all three
    splits, ``scalearn`` for train and dev (the dev file is the test, as in the benchmarks),
    ``holdout`` for other files; ``scalearn`` for repositories.
    """
    written = load_suite(spec.suite).protocol if spec.suite in list_suites() else None
    if written is not None:
        return written
    files = spec.data.get("files")
    if files is not None:
        dev, test = bool({"validation", "dev"} & {*files}), "test" in files
        return {(True, True): "official", (True, False): "scalearn"}.get((dev, test), "holdout")
    return "official" if "demo" in spec.data else "scalearn"
