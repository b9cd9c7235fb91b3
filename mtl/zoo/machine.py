"""What one machine knows and what may travel: the two are kept apart.

A manifest, a card and a record of an export go to other machines; they hold names of files, sizes
and fingerprints. Where things lie here (files of a task, the folder in which a command was typed)
is kept in the user's cache (:mod:`mtl.remembered`), is never pushed, and is the only place besides
the command line from which such a path is taken: what a stranger's manifest says is not followed.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mtl.files import model_name, path_name
from mtl.remembered import recall, remember

if TYPE_CHECKING:
    from mtl.zoo.manifest import Manifest

_PLACES = ("--zoo", "--runs", "--graph")
"""Options that say where a command works: nothing of them belongs to its result."""
MIRROR = "--data-root"
ANY_ROOT = "DATA_ROOT"
"""What stands for a local mirror of Hub datasets: that data came from one, not where it lies."""
YAML_SUFFIXES = (".yaml", ".yml")
_WITH_METHOD = re.compile(r"(.+\.ya?ml)(:[^/\\].*)", re.DOTALL)
"""A source that is named by its task file, and by method and run: ``FILE:METHOD/seedN-HASH``."""
_ABSOLUTE = re.compile(r"(/|~|[A-Za-z]:[\\/]|\\\\).*", re.DOTALL)


def is_machine_path(text: str) -> bool:
    """Whether ``text`` is a path that means something on one machine only: absolute, or a home."""
    return bool(_ABSOLUTE.match(text)) and len(text) > 1


def portable_command(words: Sequence[str], *, mirror: bool = True) -> str:
    """A command line without what belongs to one machine.

    Options that name zoo, runs and graph are left out; of a path (absolute, of a home, starting
    with a dot, of a YAML file, or of a model folder) its last part is kept.

    Args:
        mirror: keep that there was a local mirror of Hub datasets, as ``--data-root DATA_ROOT``.
    """
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option in _PLACES or option == MIRROR:
            value = value if equals else next(rest, "")
            if option == MIRROR and mirror and value:
                kept += [MIRROR, ANY_ROOT]
        elif equals:
            kept.append(f"{option}={_short(value, option)}")
        else:
            kept.append(_short(word, kept[-1] if kept else ""))
    return shlex.join(kept)


def _short(word: str, option: str) -> str:
    if "," in word:  # names of tasks, as --task takes them
        return ",".join(_short(part, option) for part in word.split(","))
    source = _WITH_METHOD.fullmatch(word)
    if source:
        return _short(source[1], option) + source[2]
    dotted = word.startswith(("./", "../", ".\\", "..\\")) or word in {".", ".."}
    if option == "--model" and os.path.isdir(word):
        return model_name(os.path.abspath(word))
    if is_machine_path(word) or dotted or word.endswith(YAML_SUFFIXES):
        name = model_name if option == "--model" else path_name
        return name(str(Path(word).absolute()) if word in {".", ".."} else word)
    return word


def portable_text(command: str, *, mirror: bool = True) -> str:
    """:func:`portable_command` of a command line that stands in a manifest."""
    try:
        return portable_command(shlex.split(command), mirror=mirror)
    except ValueError:
        return command


def own_paths(manifest: Manifest, command: str) -> list[str]:
    """What of a portable ``command`` is a name that whoever types it has to put a path for."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    parts = [part for word in words for part in word.split(",")]
    files = [_WITH_METHOD.sub(r"\1", part) for part in parts]
    away = [name for name in files if name.endswith(YAML_SUFFIXES)]
    base = manifest.base
    if not base["revision"] and base["id"] != "demo":
        away.append(f"the model folder {base['id']}")
    if ANY_ROOT in words:
        away.append(f"a mirror of the Hub's datasets ({MIRROR}; without it they come from the Hub)")
    return list(dict.fromkeys(away))


def remember_command(runhash: str, command: str) -> None:
    """Keep what was typed for a run, and where, for who wants to make it again here."""
    remember("commands", runhash, {"command": command, "folder": os.getcwd()})


def recall_command(runhash: str) -> tuple[str, str] | None:
    """What was typed for the run, and in which folder, if it was on this machine."""
    found = recall("commands", runhash)
    command, folder = (found or {}).get("command"), (found or {}).get("folder")
    return (command, folder) if isinstance(command, str) and isinstance(folder, str) else None


def machine_paths(manifest: Manifest) -> list[str]:
    """Paths of one machine that a manifest of before holds where its digest covers them.

    Since they were left out of what is stored, only entries of an earlier ``mtl`` have such.
    """
    files = [name for spec in _specs(manifest) for name in _files(spec)]
    paths = [name for name in files if is_machine_path(name)]
    notes = manifest.data["notes"]
    told = [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    folders = {str(PurePosixPath(path).parent) for path in paths} - {"/", "."}
    paths += [note for note in told if any(folder in note for folder in folders)]
    if is_machine_path(manifest.base["id"]):
        paths.append(manifest.base["id"])
    return list(dict.fromkeys(paths))


def _specs(manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    listed = manifest.task.get("tasks")
    for section in (manifest.task, *(listed if isinstance(listed, list) else ())):
        spec = section.get("spec") if isinstance(section, Mapping) else None
        if isinstance(spec, Mapping):
            yield spec


def _files(spec: Mapping[str, Any]) -> Iterator[str]:
    data = spec.get("data")
    files = data.get("files") if isinstance(data, Mapping) else None
    for name in files.values() if isinstance(files, Mapping) else ():
        if isinstance(name, str):
            yield name
