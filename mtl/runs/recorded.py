"""The task of a stored entry: what it is, and where its data lie on this machine.

An entry carries its task whole (``task.spec`` of its manifest: :func:`recorded_spec`), but not
where the data lie. Files are read only where this machine or the command line says so: a task file
named there, the catalogue, or the record that a run (or a verification) left in the user's cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.data.origins import split_files
from mtl.errors import RequestError
from mtl.files import DATA_ROOT, path_name, sha256_json, user_path
from mtl.remembered import recall, remember
from mtl.tasks import TaskSpec, list_tasks, load_task
from mtl.tasks.yamls import read_yaml, tasks_folder

if TYPE_CHECKING:
    from mtl.data import TaskData
    from mtl.runs.workspace import Workspace
    from mtl.zoo import Entry

OPTION = "--task FILE"


def task_of(
    entry: Entry, workspace: Workspace, task: str | None = None, *, option: str = OPTION
) -> TaskSpec:
    """The task that an entry was made for, with data that can be read here.

    Looked for in this order: the task files of the command line (``workspace.tasks``), the
    catalogue, the record of the run that made the entry here. Of the last two, the one that says
    what the entry says of its task goes first. Whether the data are those of then, their
    fingerprints tell (:func:`mtl.runs.loading.data_of_entry`).

    Args:
        task: which of the tasks of a joint entry; None for the one of another entry.
        option: how the command at hand takes a task file, for the message.

    Raises:
        RequestError: nobody here knows the task, or a file of it is gone; says which, and what to
            do.
    """
    section, data = sections(entry, task)
    name = str(section["id"])
    for spec in map(load_task, workspace.tasks):
        if spec.id == name:
            return spec
    found: list[TaskSpec] = []
    if name in list_tasks():
        found.append(load_task(name))
    record = recall("tasks", _key(name, data))
    found += _recorded(name, record, _root(workspace))
    if not found:
        raise _unknown(entry, name, section, record, option)
    return next((spec for spec in found if not changed_keys(spec, section)), found[0])


def find_task(name: str, suite: str | None, workspace: Workspace) -> TaskSpec:
    """A task by its id: of the files that the command line names, else of the catalogue.

    Raises:
        RequestError: see :func:`mtl.tasks.load_task`.
    """
    named = {spec.id: spec for spec in map(load_task, workspace.tasks)}
    return named[name] if name in named else load_task(name, suite)


def sections(entry: Entry, task: str | None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a manifest says of a task and of its data: its ``task`` and ``data``, or one of several.

    Raises:
        RequestError: a joint entry has no such task.
    """
    manifest = entry.manifest
    listed = manifest.task.get("tasks") if manifest.kind == "joint" else None
    if not isinstance(listed, list):
        return manifest.task, manifest.data
    datas = manifest.data.get("tasks")
    for section in listed:
        if isinstance(section, Mapping) and section.get("id") == task:
            data = datas.get(task) if isinstance(datas, Mapping) else None
            return section, data if isinstance(data, Mapping) else {}
    raise RequestError(f"{entry.ref} has no task {task!r}.")


def recorded_spec(entry: Entry, task: str | None = None) -> TaskSpec:
    """The task as the entry itself tells it: templates, labels, lengths, metrics.

    Its ``data`` are names without a place; nothing is read by them.

    Raises:
        RequestError: the manifest does not tell it (foreign adapters, and entries of before), or
            tells nonsense.
    """
    section, _ = sections(entry, task)
    told = section.get("spec")
    if not isinstance(told, Mapping):
        raise RequestError(f"{entry.ref} does not say how its task {section.get('id')!r} is read.")
    try:
        return TaskSpec.from_dict(told)
    except RequestError as error:
        raise RequestError(
            f"{entry.ref}: what it says of its task cannot be used: {error}"
        ) from error


def changed_keys(spec: TaskSpec, section: Mapping[str, Any]) -> list[str]:
    """The keys in which a task is another one than a manifest says, ``data`` aside.

    Entries that do not tell their task differ in nothing.
    """
    told = section.get("spec")
    if not isinstance(told, Mapping):
        return []
    now = spec.portable()
    if not spec.labels and isinstance(told.get("labels"), list):
        now["labels"] = told["labels"]  # those of the data, which their fingerprint covers
    keys = sorted({*now, *told} - {"data"})
    return [key for key in keys if now.get(key) != told.get(key)]


def change_text(spec: TaskSpec, entry: Entry, task: str | None = None) -> str:
    """What was changed in a task since, as a sentence for an error; empty where nothing was."""
    section, _ = sections(entry, task)
    told = section.get("spec") or {}
    now = spec.portable()
    keys = changed_keys(spec, section)
    if not keys:
        return ""
    said = "; ".join(f"{key} was {told.get(key)!r:.80}, is {now.get(key)!r:.80}" for key in keys)
    return f" Its task is not what it was ({spec.where}): {said}."


def remember_task(data: TaskData, workspace: Workspace) -> None:
    """Keep on this machine where a task of the user's own, with these data, is read from."""
    spec = data.spec
    if spec.origin is None or spec.origin.resolve().is_relative_to(tasks_folder()):
        return
    root = _root(workspace)
    value = spec.to_dict()
    if "files" in spec.data:
        try:
            found = split_files(spec, root)
        except RequestError:  # moved while the run went on: there is nothing to keep
            return
        value["data"] = {"files": {split: str(path.resolve()) for split, path in found.items()}}
    remember(
        "tasks",
        _key(spec.id, {"fingerprint": data.fingerprint}),
        {"origin": str(spec.origin.resolve()), "spec": value},
    )


def _root(workspace: Workspace) -> Path | None:
    return user_path(workspace.data_root, DATA_ROOT) if workspace.data_root else None


def _key(task: str, data: Mapping[str, Any]) -> str:
    return sha256_json([task, str(data.get("fingerprint"))])


def _recorded(task: str, record: Mapping[str, Any] | None, root: Path | None) -> list[TaskSpec]:
    """The task by the record of a run: its file, and what the file said then, if data are there."""
    found: list[TaskSpec] = []
    if record is None:
        return found
    origin = Path(str(record.get("origin")))
    told = record.get("spec")
    for content in (_content(origin), told if isinstance(told, dict) else {}):
        try:
            spec = TaskSpec.from_dict(content, origin)
            if "files" in spec.data:
                split_files(spec, root)
        except RequestError:
            continue  # removed, changed or moved: what is left over, or nothing, is looked at
        if spec.id == task:
            found.append(spec)
    return found


def _content(path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path)
    except RequestError:
        return {}


def _unknown(
    entry: Entry,
    task: str,
    section: Mapping[str, Any],
    record: Mapping[str, Any] | None,
    option: str,
) -> RequestError:
    names = [f"{split}: {path_name(str(name))}" for split, name in _files(section).items()]
    was = f" Its data were {', '.join(names)}." if names else ""
    why = "it is no task of the catalogue, and no run on this machine has noted where its data lie."
    if record is not None:
        gone = [str(path) for path in _files(record).values() if not Path(str(path)).is_file()]
        why = f"{' and '.join(gone) or record.get('origin')} moved, or was removed."
        was = ""
    return RequestError(
        f"Cannot read the data of the task {task!r} of {entry.ref}: {why}{was} Name its task file, "
        f"the YAML file that says where the data lie: {option}; or set MTL_TASKS to the folder "
        "that holds it."
    )


def _files(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """``spec.data.files`` of a section or a record, whatever else may stand there."""
    value: Any = told
    for key in ("spec", "data", "files"):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}
