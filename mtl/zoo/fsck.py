"""A check of everything in a zoo. It reads, hashes and names; it never loads or executes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mtl.zoo.check as check
from mtl.zoo.entry import again_text
from mtl.zoo.intake import check_content
from mtl.zoo.merged import beside, plain
from mtl.zoo.names import MANIFEST, is_pickle, is_safe_name
from mtl.zoo.place import option_of, zoo_option
from mtl.zoo.places import name_problem
from mtl.zoo.problem import Problem
from mtl.zoo.staging import LOCK_SUFFIX, ZOO_LOCK, clear, is_dead, is_temporary

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry
    from mtl.zoo.reader import ZooReader

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` after each entry."""

_AT_ROOT = {"README.md", ".gitignore", ".gitattributes", "mtl.lock", ZOO_LOCK}


def fsck(
    zoo: ZooReader, progress: Progress | None = None, jobs: int | None = None
) -> list[Problem]:
    """Problems of the whole zoo, by place.

    Of every entry: manifest (readable, schema, digest), file table (there, size, sha256), tensor
    headers, what configs ask for, whether tensors fit base and task, NaN or infinite weights, files
    that it does not name, parents (there, with the pinned digest). Of the zoo: leftovers of killed
    writers, files outside entries, formats that can carry code, symbolic links, names that cannot
    travel.

    Args:
        jobs: entries that are checked at once, in threads (hashing does not hold Python's lock);
            None for one per processor, at most 8.
    """
    outside = list(_outside(zoo))
    entries = zoo.entries()
    problems = [*outside, *zoo.problems]
    digests, refs = {entry.digest for entry in entries}, {entry.ref for entry in entries}
    pool = ThreadPoolExecutor(jobs or min(8, os.cpu_count() or 1))
    try:
        checks = pool.map(lambda entry: _settled(zoo, entry, digests, refs), entries)
        for done, found in enumerate(checks, start=1):
            problems += found
            if progress is not None:
                progress(done, len(entries))
    finally:
        pool.shutdown(cancel_futures=True)
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda problem: (problem.path, problem.kind))


def clean(zoo: ZooReader) -> list[str]:
    """Remove every dead temporary; return their paths relative to the root.

    Raises:
        RunError: the system refuses.
    """
    return [zoo.ref(path) for path in temporaries(zoo) if clear(path, zoo.root)]


def _settled(zoo: ZooReader, entry: Entry, digests: set[str], refs: set[str]) -> list[Problem]:
    """Problems of an entry that is still the one that was listed.

    Where another process removed it, or removed it and stored it again, while it was looked at,
    what was found is not a problem, and what is there now is looked at instead.
    """
    while True:
        try:
            before = os.stat(entry.folder).st_ino
            found = list(_entry(entry, digests, refs))
            if not found:
                return []
            (now,) = zoo.read([entry])
            if os.stat(entry.folder).st_ino == before and now.digest == entry.digest:
                return found
        except (FileNotFoundError, ValueError):  # ValueError: there is none any more
            return []
        entry = now


def _entry(entry: Entry, digests: set[str], refs: set[str]) -> Iterator[Problem]:
    ref = f"{entry.ref}{option_of(entry)}"
    again = f"Remove the entry (python -m mtl.zoo rm {ref}), then {again_text(entry)}"

    def placed(problem: Problem, fallback: str = "") -> Problem:
        return replace(
            problem, path=f"{entry.ref}/{problem.path}", remedy=problem.remedy or fallback
        )

    try:
        for problem in check.check_files(entry.folder, entry.files):
            yield placed(problem, again)
        for problem in check_content(entry.folder, entry):
            yield placed(problem)
        for problem in check.check_strays(entry.folder, entry.files):
            yield placed(problem)
    except FileNotFoundError:
        return  # removed while it was checked
    except OSError as error:
        yield Problem("unreadable", entry.ref, f"cannot be read: {error.strerror or error}.", again)
    if entry.ref not in (plain(entry.ref), beside(plain(entry.ref), entry.digest)):
        yield Problem(
            "name",
            entry.ref,
            f"does not stand where its digest, {entry.digest[:12]}…, belongs beside another "
            "result of its run.",
            f"Rename the folder to {beside(plain(entry.ref), entry.digest).rpartition('/')[2]}.",
        )
    for parent in entry.manifest.parents:
        if parent["digest"] in digests:
            continue
        there = parent["ref"] in refs
        what = "another result is at its place" if there else "it is missing"
        yield Problem(
            "parent",
            entry.ref,
            f"needs {parent['ref']} with digest {parent['digest'][:12]}…: {what}.",
            f"Restore that source, or remove this entry and {again_text(entry)}",
        )


def temporaries(zoo: ZooReader) -> Iterator[Path]:
    """Temporary folders and files, and lock files without one, outside of entries."""
    for path, _ in _walk(zoo):
        if not is_temporary(path.name):
            continue
        if (
            path.name.endswith(LOCK_SUFFIX)
            and path.with_name(path.name.removesuffix(LOCK_SUFFIX)).exists()
        ):
            continue  # goes with its folder
        yield path


def _walk(zoo: ZooReader) -> Iterator[tuple[Path, os.DirEntry[str]]]:
    """Everything below the root that is in no entry and in no temporary; links not followed."""
    todo = [zoo.root]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(folder) as listing:
                items = sorted(listing, key=lambda item: item.name)
        except OSError:
            continue  # Zoo.entries names it
        if folder != zoo.root and any(item.name == MANIFEST for item in items):
            continue
        for item in items:
            path = folder / item.name
            yield path, item
            if item.is_dir(follow_symlinks=False) and not is_temporary(item.name):
                todo.append(path)


def _outside(zoo: ZooReader) -> Iterator[Problem]:
    for path in temporaries(zoo):
        if is_dead(path):
            yield Problem(
                "leftover",
                zoo.ref(path),
                "was left by a writer that was killed.",
                f"'python -m mtl.zoo fsck --fix{zoo_option(zoo.root)}' removes it.",
            )
    for path, item in _walk(zoo):
        ref = zoo.ref(path)
        if is_temporary(item.name):
            continue
        if item.is_symlink():
            yield check.link_problem(path, ref)
        elif item.is_dir(follow_symlinks=False):
            if not is_safe_name(item.name):
                yield name_problem(ref)
        elif is_pickle(item.name):
            yield check.pickle_problem(ref)
        elif not (path.parent == zoo.root and item.name in _AT_ROOT):
            yield Problem("stray", ref, "belongs to no entry.", check.REMOVE_STRAY)
