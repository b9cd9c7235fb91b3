"""Suites (tasks that belong together) and recipes (a paper's settings per method and task)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, unknown
from mtl.tasks.yamls import catalog, check_keys, is_file_name, read_yaml

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
    path = _path(name, "suite", catalog().suites)
    content = read_yaml(path)
    known = ("name", "tasks", "model", "recipe", "protocol", "target", "notes", "aliases")
    check_keys(content, known, ("tasks", "model", "recipe", "protocol"), str(path))
    aliases = content.get("aliases") or {}
    if not isinstance(aliases, dict):
        raise RequestError(f"{path}: aliases must map one id to another, it is {aliases!r}.")
    tasks = content["tasks"]
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks) or not tasks:
        raise RequestError(f"{path}: tasks must be a list of task ids, it is {tasks!r}.")
    ids = [_known_task(str(aliases.get(task, task)), path) for task in tasks]
    if len(set(ids)) != len(ids):
        raise RequestError(f"{path}: tasks names a task twice: {', '.join(ids)}.")
    for other in aliases.values():
        _known_task(str(other), path)
    target = content.get("target")
    if target is not None:
        target = _known_task(str(aliases.get(target, target)), path)
        if target not in ids:
            raise RequestError(f"{path}: the target {target!r} is none of the suite's tasks.")
    from mtl.tasks.protocols import PROTOCOLS

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
    from mtl.tasks.protocols import default_protocol

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


FEW_SHOT: Mapping[str, Any] = {
    "max_steps": 1000,
    "patience": "20 epochs",
    "select": "metric",
    "max_dev_samples": 5000,
    "eval_every": 10,
}
"""What few-shot runs change in every recipe (specs/composition_methods §1.6, §3.3).

The reference evaluates after each epoch, that is after 1 step up to 32 rows and after 4 of 100, and
spends nearly all its time on that; every 10 steps keep evaluations at 100. Its patience of 20
evaluations is therefore one of 20 epochs. ``--eval-every 0`` is the reference.
"""


@dataclass(frozen=True)
class Recipe:
    """Settings by method and task, as a paper or a suite fixes them.

    Attributes:
        name: what the user types.
        defaults: for every run.
        methods: by method, or by a pattern such as ``scalearn*``.
        tasks: by method (or pattern), then by task id.
        few_shot: keys ``defaults``, ``methods``, ``tasks`` likewise, applied over the others and
            over :data:`FEW_SHOT` in runs with ``shots``.
        notes: where the settings come from.
    """

    name: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    notes: str = ""
    few_shot: Recipe | None = None

    def settings(self, method: str, task_id: str, *, few_shot: bool = False) -> dict[str, Any]:
        """The settings of one run: defaults, over them the method's, over them the task's.

        Patterns apply in the order of the file; the method's own name applies after them. With
        ``few_shot``, :data:`FEW_SHOT` and the section of that name apply over all of these.
        """
        merged = dict(self.defaults)
        for section in _matching(self.methods, method):
            merged.update(section)
        for section in _matching(self.tasks, method):
            merged.update(section.get(task_id, {}))
        if few_shot:
            merged.update(FEW_SHOT)
            if self.few_shot is not None:
                merged.update(self.few_shot.settings(method, task_id))
        return merged


def _matching(sections: Mapping[str, Any], method: str) -> list[Any]:
    by_pattern = [
        section
        for pattern, section in sections.items()
        if pattern != method and fnmatchcase(method, pattern)
    ]
    return by_pattern + ([sections[method]] if method in sections else [])


def list_recipes() -> list[str]:
    """Names of all recipes, sorted."""
    return sorted(catalog().recipes)


def load_recipe(name: str) -> Recipe:
    """Read a recipe by name or by the path of its YAML file.

    Raises:
        RequestError: unknown recipe, unknown key, or a section that is no mapping.
    """
    path = _path(name, "recipe", catalog().recipes)
    content = read_yaml(path)
    known = ("name", "notes", "defaults", "methods", "tasks", "few_shot")
    check_keys(content, known, (), str(path))
    recipe = _sections(content, path, str(content.get("name") or path.stem))
    if content.get("few_shot") is None:
        return recipe
    inner = _mapping(content["few_shot"], path, "few_shot")
    check_keys(inner, ("defaults", "methods", "tasks"), (), f"{path}, few_shot")
    return replace(recipe, few_shot=_sections(inner, path, f"{recipe.name}, few-shot"))


def _sections(content: Mapping[str, Any], path: Path, name: str) -> Recipe:
    defaults = _mapping(content.get("defaults"), path, "defaults")
    methods = {
        method: _mapping(section, path, f"methods.{method}")
        for method, section in _mapping(content.get("methods"), path, "methods").items()
    }
    tasks = {
        method: {
            _known_task(str(task), path): _mapping(section, path, f"tasks.{method}.{task}")
            for task, section in _mapping(by_task, path, f"tasks.{method}").items()
        }
        for method, by_task in _mapping(content.get("tasks"), path, "tasks").items()
    }
    return Recipe(
        name=name,
        defaults=defaults,
        methods=methods,
        tasks=tasks,
        notes=str(content.get("notes") or "").strip(),
    )


def _mapping(value: Any, path: Path, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(f"{path}: {where} must hold keys and values, it is {value!r}.")
    return {str(key): item for key, item in value.items()}


def _path(name: str, kind: str, known: Mapping[str, Path]) -> Path:
    if is_file_name(name):
        return Path(name).expanduser()
    if name not in known:
        raise unknown(kind, name, known, catalog().hint())
    return known[name]


def _known_task(task: str, path: Path) -> str:
    known = catalog()
    task = known.aliases.get(task, task)
    if task not in known.tasks:
        raise RequestError(f"{path}: {unknown('task', task, known.tasks)}")
    return task
