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

from mtl.files import path_name
from mtl.remembered import recall, remember

if TYPE_CHECKING:
    from mtl.zoo.manifest import Manifest

_PLACES = ("--zoo", "--runs", "--data-root", "--graph")
"""Options that say where a command works: nothing of them belongs to its result."""
YAML_SUFFIXES = (".yaml", ".yml")
_ABSOLUTE = re.compile(r"(/|~|[A-Za-z]:[\\/]|\\\\).*", re.DOTALL)


def is_machine_path(text: str) -> bool:
    """Whether ``text`` is a path that means something on one machine only: absolute, or a home."""
    return bool(_ABSOLUTE.match(text)) and len(text) > 1


def portable_command(words: Sequence[str]) -> str:
    """A command line without what belongs to one machine.

    Options that name zoo, runs, data root and graph are left out; of a path (absolute, of a home,
    starting with a dot, of a YAML file, or of a model folder) its last part is kept.
    """
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option in _PLACES:
            if not equals:
                next(rest, None)
            continue
        if equals:
            kept.append(f"{option}={_short(value, option)}")
        else:
            kept.append(_short(word, kept[-1] if kept else ""))
    return shlex.join(kept)


def _short(word: str, option: str) -> str:
    if "," in word:  # names of tasks, as --task takes them
        return ",".join(_short(part, option) for part in word.split(","))
    dotted = word.startswith(("./", "../", ".\\", "..\\")) or word in {".", ".."}
    written = word.endswith(YAML_SUFFIXES)
    model = option == "--model" and os.path.isdir(word)
    if is_machine_path(word) or dotted or written or model:
        return path_name(str(Path(word).absolute()) if word in {".", ".."} else word)
    return word


def portable_text(command: str) -> str:
    """:func:`portable_command` of a command line that stands in a manifest."""
    try:
        return portable_command(shlex.split(command))
    except ValueError:
        return command


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
