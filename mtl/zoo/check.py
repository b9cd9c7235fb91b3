"""What is in an entry's folder, and whether it is what its manifest says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtl.errors import MtlError, ZooError
from mtl.files import sha256_file
from mtl.limits import Limits
from mtl.untrusted import read_header
from mtl.zoo.names import CARD, MANIFEST, TENSOR_SUFFIX, is_pickle, safe_path, show
from mtl.zoo.problem import Problem

FileTable = Mapping[str, Mapping[str, Any]]

REMOVE_STRAY = "Move it out of the zoo, or delete it."


def walk_entry(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file, link and special file below ``folder``, by relative posix name, sorted.

    Links are given, never followed.
    """

    todo, found = [""], []
    while todo:
        prefix = todo.pop()
        with os.scandir(folder / prefix) as listing:
            for item in listing:
                name = f"{prefix}{item.name}"
                if item.is_dir(follow_symlinks=False):
                    todo.append(f"{name}/")
                else:
                    found.append((name, item))
    yield from sorted(found, key=lambda pair: pair[0])


def file_table(folder: Path, ref: str) -> dict[str, dict[str, Any]]:
    """``{"sha256", "bytes"}`` of every file of a staged entry but manifest and card.

    A safetensors file also has ``"tensors"``: name → ``[dtype, shape]``, as its header says.

    Raises:
        ZooError: a pickle, a link, a special file, a name that cannot travel, or no safetensors.
    """
    table = {}
    for name, item in walk_entry(folder):
        if name in {MANIFEST, CARD}:
            continue
        try:
            safe_path(name, "file name")
        except MtlError as error:
            raise ZooError(f"Cannot store {ref}: {error}") from error
        if not item.is_file(follow_symlinks=False):
            raise ZooError(f"Cannot store {ref}: {name} is a link or a special file, not a file.")
        if is_pickle(name):
            raise ZooError(
                f"Cannot store {ref}: {name} is of a format that can carry code; the zoo holds "
                "JSON and safetensors."
            )
        path = folder / name
        table[name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    try:
        return with_headers(folder, table)
    except ZooError as error:
        raise ZooError(f"Cannot store {ref}: {error}") from error


def with_headers(folder: Path, table: FileTable) -> dict[str, dict[str, Any]]:
    """``table`` with the ``tensors`` of every safetensors file; schema version 1 has none.

    Raises:
        ZooError: a file is missing, or no safetensors file.
    """
    whole = {}
    for name, item in table.items():
        whole[name] = dict(item)
        if name.endswith(TENSOR_SUFFIX) and "tensors" not in item:
            try:
                header = read_header(folder / name, name)
            except FileNotFoundError as error:
                raise ZooError(f"{name} is missing.") from error
            whole[name]["tensors"] = {
                key: [info.dtype, list(info.shape)] for key, info in sorted(header.tensors.items())
            }
    return whole


def check_file(folder: Path, name: str, expected: Mapping[str, Any]) -> Problem | None:
    """Compare one file of the table with the disk: kind of file, size, then sha256."""
    path = folder / name
    for step in (path, *path.parents):
        if step == folder:
            break
        if step.is_symlink():
            return Problem("link", name, "is or lies behind a symbolic link.", "")
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return Problem("changed", name, "is not a regular file.", "")
        if found.st_size != expected["bytes"]:
            message = f"has {found.st_size} bytes, {expected['bytes']} were stored."
            return Problem("changed", name, message, "")
        digest = sha256_file(path)
    except FileNotFoundError:
        return Problem("missing", name, f"is missing ({expected['bytes']} bytes).", "")
    except OSError as error:
        return Problem("unreadable", name, f"cannot be read: {error.strerror or error}.", "")
    if digest != expected["sha256"]:
        message = f"has sha256 {digest[:16]}…, {expected['sha256'][:16]}… was stored."
        return Problem("changed", name, message, "")
    return None


def check_files(folder: Path, table: FileTable) -> Iterator[Problem]:
    """Problems of the files of the table; paths are relative to the entry."""
    for name, expected in table.items():
        problem = check_file(folder, name, expected)
        if problem is not None:
            yield problem


def check_strays(folder: Path, table: FileTable) -> Iterator[Problem]:
    """Problems of files that the table does not name: strays, pickles, links, odd names."""
    for name, item in walk_entry(folder):
        if item.is_symlink():
            yield link_problem(Path(item.path), name)
        elif is_pickle(name):
            yield pickle_problem(name)
        elif name not in table and name not in {MANIFEST, CARD}:
            yield Problem("stray", name, "is not in the entry's file table.", REMOVE_STRAY)


def check_tensors(
    folder: Path, table: FileTable, limits: Limits | None = None
) -> Iterator[Problem]:
    """Problems of safetensors files: a wrong header, or not the tensors that the table names."""
    for name, item in table.items():
        if not name.endswith(TENSOR_SUFFIX):
            continue
        try:
            header = read_header(folder / name, name, limits)
        except FileNotFoundError:
            continue  # check_files names it
        except ZooError as error:
            yield Problem(
                "tensors", name, f"is no valid safetensors file: {error}", "Do not load it."
            )
            continue
        found = {key: [info.dtype, list(info.shape)] for key, info in header.tensors.items()}
        wrong = sorted(
            key
            for key in {*found, *item.get("tensors", found)}
            if found.get(key) != item.get("tensors", found).get(key)
        )
        if wrong:
            key = wrong[0]
            message = (
                f"holds {len(wrong)} tensors of another type or shape than the manifest says: "
                f"{show(key)} is {found.get(key, 'missing')}, not "
                f"{item['tensors'].get(key, 'in the manifest')}."
            )
            yield Problem("tensors", name, message, "Do not load it.")


def link_problem(path: Path, name: str) -> Problem:
    """The finding for a symbolic link: the zoo follows none below its root."""
    return Problem(
        "link",
        name,
        f"is a symbolic link to {os.readlink(path)!r}; links are not followed in a zoo.",
        "Replace it by what it points to, or delete it.",
    )


def pickle_problem(name: str) -> Problem:
    """The finding for a file of a format that can carry code."""
    return Problem(
        "pickle",
        name,
        "is of a format that can carry code; the zoo holds JSON and safetensors.",
        "Never load it; delete it.",
    )
