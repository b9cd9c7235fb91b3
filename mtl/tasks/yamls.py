"""The YAML files behind tasks, suites and recipes: where they are, reading them, checking keys.

A file says what it is by its content: a task has ``id``, a suite has ``tasks``, and whatever lies
in a folder called ``recipes`` is a recipe, in one called ``published`` a published table
(:mod:`mtl.report.published`), in one called ``studies`` a study (:mod:`mtl.study.file`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from mtl.errors import RequestError, did_you_mean, unknown
from mtl.files import user_path
from mtl.registry import Plugin, plugins
from mtl.tasks.looking import seen

SUFFIXES = (".yaml", ".yml")
PUBLISHED, STUDY = "published table", "study"
FOLDERS = {"recipes": "recipe", "published": PUBLISHED, "studies": STUDY}
"""What a file is by the name of its folder."""


class _Loader(yaml.SafeLoader):
    """Safe YAML with three traps of YAML 1.1 removed.

    ``1e-3`` is a number, ``yes`` and ``no`` are words (they are labels of tasks), and a key that
    is written twice is an error instead of a silent overwrite.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is written twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:bool"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        RequestError: no such file, no YAML, or no mapping; the message names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RequestError(f"There is no file {path}.{_beside(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    return parse_yaml(text, path)


def _beside(path: Path) -> str:
    """What stands where a file was looked for: the likest, else all of a few, else that none is."""
    folder = path.parent
    if not folder.is_dir():
        return f" Nor is there a folder {folder}."
    there = sorted(str(found) for found in folder.iterdir() if found.suffix in SUFFIXES)
    if not there:
        return f" No YAML file is in {folder.resolve()}."
    return did_you_mean(str(path), there) or (
        f" {folder}/ has {', '.join(Path(name).name for name in there[:8])}"
        f"{', …' if len(there) > 8 else '.'}"
    )


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """The mapping in a text of YAML; ``path`` is where it stands. Raises as :func:`read_yaml`."""
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise RequestError(f"{path}{line} is no valid YAML: {error.problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RequestError(f"{path} is no valid YAML: {error}.") from error
    if not isinstance(content, dict):
        what = "nothing" if content is None else f"a {type(content).__name__}"
        raise RequestError(f"{path} must hold keys and values, it holds {what}.")
    return content


def check_keys(
    content: Mapping[str, Any], known: Iterable[str], required: Iterable[str], where: str
) -> None:
    """Refuse keys that nobody reads, and missing ones.

    Raises:
        RequestError: names the key, the file (``where``) and the closest known key.
    """
    known = list(known)
    for key in content:
        if key not in known:
            raise RequestError(
                f"Unknown key {str(key)!r} in {where}.{did_you_mean(str(key), known)} "
                f"Known keys: {', '.join(known)}."
            )
    missing = [key for key in required if content.get(key) is None]
    if missing:
        raise RequestError(f"{where} lacks {', '.join(repr(key) for key in missing)}.")


def is_file_name(name: str) -> bool:
    """Whether a task, suite or recipe was asked for by its file."""
    return name.endswith(SUFFIXES)


def tasks_folder() -> Path:
    """The folder of the YAML files that come with the package.

    In a wheel they travel as ``mtl/_tasks``; in a checkout they stand at top level in ``tasks``.

    Raises:
        RequestError: neither is there (a broken installation).
    """
    package = Path(__file__).resolve().parents[1]
    packed = package / "_tasks"
    if packed.is_dir():
        return packed
    checkout = package.parent / "tasks"
    if checkout.is_dir():
        return checkout
    raise RequestError(
        f"The task files are missing: neither {packed} nor {checkout} exists. Install the package "
        "again, or run from a complete checkout."
    )


def folders() -> list[Path]:
    """Where YAML files are looked for first: the package's folder, then the user's ``MTL_TASKS``.

    After them come the folders of installed packages (:func:`catalog`).

    Raises:
        RequestError: ``MTL_TASKS`` names no folder.
    """
    found = [tasks_folder()]
    own = os.environ.get("MTL_TASKS")
    if own:
        folder = user_path(own, "MTL_TASKS").resolve()
        if not folder.is_dir():
            raise RequestError(f"MTL_TASKS names {own!r}, which is no folder.")
        if folder not in found:
            found.append(folder)
    return found


@dataclass(frozen=True)
class Catalog:
    """Every YAML file by what it is; ``problems`` names the files that could not be placed.

    ``taken`` says of a (kind, name) which packages define it, where that is more than one.

    A damaged file of a user does not stand in the way of other tasks; whoever lists, checks, or
    misses a name is told about it.
    """

    tasks: Mapping[str, Path]
    suites: Mapping[str, Path]
    recipes: Mapping[str, Path]
    aliases: Mapping[str, str]
    problems: Mapping[Path, str]
    taken: Mapping[tuple[str, str], str] = field(default_factory=dict)
    published: Mapping[str, Path] = field(default_factory=dict)
    studies: Mapping[str, Path] = field(default_factory=dict)

    def hint(self) -> str:
        """A sentence on unreadable files for the error of an unknown name, or nothing."""
        return " ".join(f"(Not read: {text})" for text in self.problems.values())


def catalog() -> Catalog:
    """All YAML files under :func:`folders`, and those that packages register under ``mtl.tasks``.

    Read again when one of them changed; looked at once in a block of
    :func:`mtl.tasks.looking.one_look`.
    """
    return seen(_look)


def _look() -> Catalog:
    stamps: list[tuple[Path, int, int, Plugin | None]] = []
    lost: list[Plugin] = []
    places: list[tuple[Path | None, Plugin | None]] = [(folder, None) for folder in folders()]
    places += [(_folder_of(found.target), found) for found in plugins("mtl.tasks")]
    for folder, found in places:
        if folder is None:
            lost += [found] if found else []
            continue
        for path in sorted(_yaml_files(folder)):
            stat = path.stat()
            stamps.append((path, stat.st_mtime_ns, stat.st_size, found))
    return _catalog(tuple(stamps), tuple(lost))


def _yaml_files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(SUFFIXES) and not name.startswith("."):
                yield Path(place, name)


def _folder_of(target: str) -> Path | None:
    """The folder of a package, or of one in it; found without importing anything."""
    top, *inner = target.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    for place in (spec and spec.submodule_search_locations) or ():
        if (folder := Path(place, *inner)).is_dir():
            return folder
    return None


@lru_cache(maxsize=8)
def _catalog(
    stamps: tuple[tuple[Path, int, int, Plugin | None], ...], lost: tuple[Plugin, ...]
) -> Catalog:
    taken: dict[tuple[str, str], str] = {}
    owners: dict[Path, Plugin | None] = {}
    kinds: dict[str, dict[str, Path]] = {kind: {} for kind in ("task", "suite", *FOLDERS.values())}
    aliases: dict[str, str] = {}
    problems = {
        Path(found.target): f"Package {found} registers task files in {found.target}, where no "
        f"folder is: repair or uninstall {found.package}."
        for found in lost
    }
    for path, _, _, owner in stamps:
        owners[path] = owner
        try:
            content = read_yaml(path)
            kind, name = _classify(path, content)
            if name in kinds[kind]:
                other = kinds[kind][name]
                both = " and ".join(
                    f"{file}{f' of package {owners[file]}' if owners[file] else ''}"
                    for file in (path, other)
                )
                text = f"{both} both define the {kind} {name!r}; rename one."
                if owner:
                    taken[kind, name] = f"{text} Or uninstall {owner.package}."
                raise RequestError(taken.get((kind, name), text))
            kinds[kind][name] = path
            if kind == "suite" and isinstance(content.get("aliases"), dict):
                aliases.update({str(key): str(value) for key, value in content["aliases"].items()})
        except RequestError as error:
            problems[path] = str(error)
    tasks, suites, recipes, published, studies = kinds.values()
    return Catalog(tasks, suites, recipes, aliases, problems, taken, published, studies)


def find_yaml(name: str, kind: str, known: Mapping[str, Path]) -> Path:
    """The file of the task, suite or recipe called ``name``, or the file that ``name`` is.

    Raises:
        RequestError: unknown.
    """
    if is_file_name(name):
        return user_path(name, kind)
    if name not in known:
        raise unknown(kind, name, known, catalog().hint())
    refuse_taken(kind, name)
    return known[name]


def refuse_taken(kind: str, name: str) -> None:
    """Refuse a name that a package defines and somebody else, too.

    Raises:
        RequestError: says who.
    """
    if (kind, name) in catalog().taken:
        raise RequestError(catalog().taken[kind, name])


def known_task(task: str, path: Path, known: Catalog) -> str:
    """The id of ``task``, which ``path`` names, aliases resolved.

    Raises:
        RequestError: unknown.
    """
    task = known.aliases.get(task, task)
    if task not in known.tasks:
        raise RequestError(f"{path}: {unknown('task', task, known.tasks)}")
    return task


def _classify(path: Path, content: Mapping[str, Any]) -> tuple[str, str]:
    if path.parent.name in FOLDERS:
        return FOLDERS[path.parent.name], str(content.get("name") or path.stem)
    if "id" in content:
        return "task", str(content["id"])
    if "tasks" in content:
        default = path.parent.name if path.stem == "suite" else path.stem
        return "suite", str(content.get("name") or default)
    raise RequestError(
        f"{path} is neither a task (which has a key 'id') nor a suite (which has a key 'tasks'), "
        f"and it does not lie in a folder called {', '.join(FOLDERS)}."
    )
