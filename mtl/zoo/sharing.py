"""Entries that leave a zoo with the sources they need, and ``copy``: into another zoo folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError
from mtl.words import counted
from mtl.zoo.arrival import check_sizes, free_place, take_in
from mtl.zoo.machine import machine_paths
from mtl.zoo.manifest import Recorded
from mtl.zoo.names import CARD, MANIFEST
from mtl.zoo.place import option_of

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry
    from mtl.zoo.store import Zoo

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` with bytes, after each file."""


@dataclass(frozen=True)
class Shared:
    """What was copied, packed or unpacked (or, in a dry run, would be).

    Attributes:
        place: the folder or file it went into.
        entries: per entry ``{"ref", "digest", "status"}``, sources first; the status is ``copied``,
            ``packed`` or ``unpacked``, or ``there`` where the place holds it already.
        bytes: of the files of those that were not there.
    """

    place: str
    entries: list[dict[str, str]]
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def with_sources(zoo: Zoo, keys: Sequence[str]) -> list[Entry]:
    """The entries that ``keys`` name (all for none), each composition after all its sources.

    Raises:
        RequestError: a key names none or several; a source is not in the zoo.
    """
    every = zoo.entries()
    digests = {entry.digest: entry for entry in every}
    chosen: dict[str, Entry] = {}

    def add(entry: Entry, path: tuple[str, ...]) -> None:
        for parent in entry.manifest.parents:
            source = digests.get(parent["digest"])
            if source is None:
                raise RequestError(
                    f"{entry.ref} needs {parent['ref']} with digest {parent['digest'][:12]}…, "
                    f"which is not in the zoo {zoo.root}. Restore it (python -m mtl.zoo pull "
                    f"USER/NAME {parent['ref']}{option_of(entry)}), or leave the composition out."
                )
            if source.digest not in path:  # a circle exists only in a zoo that somebody made up
                add(source, (*path, entry.digest))
        chosen.setdefault(entry.ref, entry)

    for entry in [zoo.get(key) for key in keys] or every:
        add(entry, ())
    return list(chosen.values())


def need_portable(entries: Sequence[Entry], verb: str) -> None:
    """Refuse entries of before whose digests cover where files lie on the machine that made them.

    Args:
        verb: what is to be done with them: "push", "pack".

    Raises:
        RequestError: names entries and paths.
    """
    found = {entry.ref: paths for entry in entries if (paths := machine_paths(entry.manifest))}
    if found:
        lines = "\n  ".join(f"{ref}: {', '.join(paths)}" for ref, paths in found.items())
        raise RequestError(
            f"{len(found)} of {counted(len(entries), 'entry', 'entries')}, stored by an earlier "
            "mtl, would publish where files lie on a machine, in a part of the manifest that the "
            f"digest covers:\n  {lines}\nTrain them again (entries of today keep the names of "
            f"files alone), or {verb} them as they are: --with-paths."
        )


def copy(
    zoo: Zoo,
    keys: Sequence[str],
    other: Zoo,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Shared:
    """Put entries of ``zoo``, each after the sources it needs, into the zoo ``other``.

    They are checked there as pulled ones are, and keep their references and digests.

    Args:
        keys: as for ``Zoo.get``; none for the whole zoo.
        dry_run: say what would be copied.

    Raises:
        RequestError: a key names none or several, a source is missing, ``other`` is this zoo or
            lies in it.
        ZooError: an entry is damaged, or its place is none.
        RunError: another result is in an entry's place; the system refuses.
    """
    ours, theirs = zoo.root.resolve(), other.root.resolve()
    if theirs == ours or ours in theirs.parents or theirs in ours.parents:
        raise RequestError(
            f"Cannot copy entries of the zoo {zoo.root} into {other.root}: name a folder that is "
            "neither this zoo nor in it, nor around it."
        )
    entries = with_sources(zoo, keys)
    new = missing(other, [(entry.ref, _recorded(entry)) for entry in entries], "copy")
    wanted = [entry for entry in entries if entry.ref in new]
    for entry in wanted:
        zoo.load_check(entry)
    size = sum(check_sizes(_recorded(entry), entry.ref) for entry in wanted)
    if not dry_run:
        count = Counting(size, progress)
        for entry in wanted:
            with zoo.reading(entry):
                take_in(other, new[entry.ref], _recorded(entry), partial(_fill, entry, count))
    return Shared(str(other.root), rows(entries, new, "copied"), size)


def missing(zoo: Zoo, wanted: Sequence[tuple[str, Recorded]], verb: str) -> dict[str, str]:
    """The references of ``wanted`` whose entries the zoo has not got, and where they are to stand.

    What it has is checked.

    Raises:
        ZooError, RunError: see :func:`mtl.zoo.arrival.free_place`; an entry there is damaged.
    """
    local = {entry.digest: entry for entry in zoo.entries()}
    new = {}
    for ref, recorded in wanted:
        there = local.get(recorded.digest)
        if there is not None:
            zoo.load_check(there)
        else:
            new[ref] = free_place(zoo, ref, recorded, f"{verb} {ref} into {zoo.root}")
    return new


def rows(entries: Sequence[Any], new: Mapping[str, str], done: str) -> list[dict[str, str]]:
    """The rows of a :class:`Shared`, of things with ``ref`` and ``digest``.

    Args:
        new: reference → place of those that were not there.
    """
    return [
        {
            "ref": new.get(item.ref, item.ref),
            "digest": item.digest,
            "status": done if item.ref in new else "there",
        }
        for item in entries
    ]


class Counting:
    """Tells a :data:`Progress` how many bytes of all are done."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def add(self, size: int) -> None:
        self.done += size
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)


def _recorded(entry: Entry) -> Recorded:
    return Recorded(entry.manifest, entry.digest, entry.files, entry.schema_version)


def _fill(entry: Entry, count: Counting, folder: Path) -> None:
    for name in (MANIFEST, *entry.files, CARD):
        if name == CARD and not (entry.folder / name).is_file():
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(entry.folder / name, folder / name, follow_symlinks=False)
        count.add(entry.files[name]["bytes"] if name in entry.files else 0)
