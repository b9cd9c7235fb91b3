"""Tasks by name: an id, an alias, a bare name, a file, or a member of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtl.errors import RequestError, unknown
from mtl.files import user_path
from mtl.tasks.spec import TaskSpec
from mtl.tasks.yamls import SUFFIXES, catalog, is_file_name, read_yaml, refuse_taken

if TYPE_CHECKING:
    from mtl.tasks.suites import Suite


def list_tasks() -> list[str]:
    """The ids of all tasks, sorted."""
    return sorted(catalog().tasks)


def load_task(name: str, suite: str | None = None) -> TaskSpec:
    """Find a task by id, alias, bare name or YAML file.

    Args:
        name: ``"glue/rte"``; ``"rte"`` where that is unique in ``suite``, or overall; an alias of a
            suite (``"superglue/rte"``); or the path of a YAML file.
        suite: the suite in use, which settles bare names.

    Raises:
        RequestError: unknown or ambiguous name, or a file that is no valid task.
    """
    if is_file_name(name):
        return _read(user_path(name, "--task"))
    task = resolve_task(name, suite)
    refuse_taken("task", task)
    return _read(catalog().tasks[task])


def load_member(name: str, suite: Suite) -> TaskSpec:
    """:func:`load_task`, which also finds what ``suite`` names by file. Raises likewise."""
    for task, file in suite.files.items():
        if name in (task, task.split("/")[-1]):
            return _read(file)
    return load_task(name, suite.name)


def resolve_task(name: str, suite: str | None = None) -> str:
    """The id behind a name, see :func:`load_task` (files excluded). Raises likewise."""
    known = catalog()
    name = known.aliases.get(name, name)
    if name in known.tasks:
        return name
    if "/" not in name:
        everything = [*known.tasks, *known.aliases]
        spaces = [everything]
        if suite is not None and (suite in known.suites or is_file_name(suite)):
            from mtl.tasks.suites import load_suite

            members = load_suite(suite)
            spaces.insert(0, [*members.tasks, *members.aliases])
        for space in spaces:
            matches = {
                known.aliases.get(task, task) for task in space if task.split("/")[-1] == name
            }
            if len(matches) == 1:
                found = matches.pop()
                if found in known.tasks:
                    return found
            if len(matches) > 1:
                raise RequestError(
                    f"The task name {name!r} is ambiguous: {', '.join(sorted(matches))}. "
                    "Write it with its suite."
                )
    hint = "`python -m mtl.tasks ls` lists them; a path to a YAML file works, too."
    here = [name + suffix for suffix in SUFFIXES if Path(name + suffix).is_file()]
    if here:
        hint = f"There is a file {here[0]}: write it with its ending. {hint}"
    raise unknown("task", name, known.tasks, " ".join([hint, known.hint()]).strip())


def _read(path: Path) -> TaskSpec:
    return TaskSpec.from_dict(read_yaml(path), path)
