"""The door of the zoo: nothing from outside gets past it unchecked.

:func:`check_listing` looks at names and declared sizes before anything is fetched;
:func:`check_foreign` looks at a folder that was fetched, from the outside in: what its files are
called and what kind of files they are, then how large, then JSON and headers, then whether all of
it fits the manifest, and last every byte. Nothing is opened while something further out is wrong,
and nothing is imported, unpickled or executed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import mtl.zoo.check as check
import mtl.zoo.expected_shapes as fit
from mtl.errors import MtlError, ZooError
from mtl.limits import Limits, current
from mtl.untrusted import load_json, pieces, read_header
from mtl.words import printable
from mtl.zoo.composition import check_shares, share_problems
from mtl.zoo.joint_shapes import joint_problems
from mtl.zoo.manifest import Manifest, Recorded, read_manifest
from mtl.zoo.names import (
    CARD,
    MANIFEST,
    SHARES,
    TENSOR_SUFFIX,
    clash,
    is_pickle,
    predictions_of,
    safe_path,
    show,
)
from mtl.zoo.problem import Problem

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry

KEEP_OUT = "Do not use it; ask whoever published it."


def check_listing(sizes: Mapping[str, int], limits: Limits | None = None) -> list[Problem]:
    """Problems of the names and the sizes that somebody declares for the files of one entry.

    Args:
        sizes: relative posix name → bytes.
    """
    limits = limits or current()
    problems = []
    for name, size in sizes.items():
        problem = _name_problem(name)
        if problem:
            problems.append(problem)
        elif type(size) is not int or size < 0:
            problems.append(Problem("size", name, f"has the size {show(size)}.", KEEP_OUT))
        elif size > limits.file_bytes:
            message = f"has {size} bytes, over the limit file_bytes of {limits.file_bytes}."
            problems.append(Problem("size", name, message, _raise("file_bytes")))
    if len(sizes) > limits.files:
        message = f"{len(sizes)} files are over the limit files of {limits.files}."
        problems.append(Problem("size", ".", message, _raise("files")))
    if not problems:
        total = sum(sizes.values())
        if total > limits.entry_bytes:
            message = f"{total} bytes are over the limit entry_bytes of {limits.entry_bytes}."
            problems.append(Problem("size", ".", message, _raise("entry_bytes")))
        two = clash(sizes)
        if two:
            problems.append(_clash_problem(two))
    return problems


def check_foreign(
    folder: Path, limits: Limits | None = None, *, unread: Collection[str] = ()
) -> list[Problem]:
    """Everything that is wrong with a folder that a stranger filled; empty if it may be used.

    With a ``manifest.json`` the folder must be a whole entry: every file in the file table with
    size and hash, none beside it, tensors and configs as the manifest says. Without one (a
    repository written by ``adapters``), JSON, headers and values are checked by themselves.

    Args:
        unread: names of files that are allowed to be there although nothing of ours reads them
            (``pytorch_adapter.bin`` of a pushed entry).
    """
    limits = limits or current()
    if folder.is_symlink() or not folder.is_dir():
        return [Problem("link", folder.name, "is no folder.", KEEP_OUT)]
    problems = [problem for problem in _tree(folder, limits) if problem.path not in unread]
    if problems:
        return problems
    files = [name for name, _ in check.walk_entry(folder) if name not in unread]
    if MANIFEST not in files:
        return [*_strangers(files), *_contents(folder, files, None, limits)]
    try:
        recorded = read_manifest(folder / MANIFEST, folder.name, limits)
    except (ZooError, FileNotFoundError) as error:
        return [Problem("manifest", MANIFEST, str(error), KEEP_OUT)]
    problems = [*_table(recorded, files), *check.check_files(folder, recorded.files)]
    return problems or list(check_content(folder, recorded, limits))


def admit(folder: Path, what: str, limits: Limits | None = None, **more: Any) -> None:
    """Raise unless :func:`check_foreign` finds nothing.

    Raises:
        ZooError: names up to five problems of ``what``.
    """
    problems = check_foreign(folder, limits, **more)
    if problems:
        listed = "; ".join(f"{printable(p.path)} {printable(p.message)}" for p in problems[:5])
        rest = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ZooError(
            f"{what} was not taken into the zoo: {listed}{rest} {problems[0].remedy or KEEP_OUT}"
        )


def check_content(
    folder: Path, recorded: Recorded | Entry, limits: Limits | None = None
) -> Iterator[Problem]:
    """Problems inside the files of an entry whose hashes are right: configs, headers, values."""
    limits = limits or current()
    yield from check.check_tensors(folder, recorded.files, limits)
    yield from _contents(folder, recorded.files, recorded, limits)


def _tree(folder: Path, limits: Limits) -> Iterator[Problem]:
    """Names, kinds of files, links, sizes; nothing is opened."""
    todo, names, total, count = [""], [], 0, 0
    while todo:
        prefix = todo.pop()
        with os.scandir(folder / prefix) as listing:
            for item in listing:
                count += 1
                if count > limits.files:
                    message = f"has more than {limits.files} files and folders (limit files)."
                    yield Problem("size", ".", message, _raise("files"))
                    return
                name = f"{prefix}{item.name}"
                problem = _name_problem(name)
                if problem:
                    yield problem
                    continue
                found = item.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    todo.append(f"{name}/")
                    continue
                names.append(name)
                if stat.S_ISLNK(found.st_mode):
                    yield check.link_problem(Path(item.path), name)
                elif not stat.S_ISREG(found.st_mode):
                    yield Problem("link", name, "is a device, a pipe or a socket.", KEEP_OUT)
                elif found.st_nlink > 1:
                    message = f"is a hard link: {found.st_nlink} names lead to it."
                    yield Problem("link", name, message, KEEP_OUT)
                elif is_pickle(name):
                    yield check.pickle_problem(name)
                elif found.st_size > limits.file_bytes:
                    message = f"has {found.st_size} bytes (limit file_bytes)."
                    yield Problem("size", name, message, _raise("file_bytes"))
                total += found.st_size
    if total > limits.entry_bytes:
        yield Problem("size", ".", f"{total} bytes (limit entry_bytes).", _raise("entry_bytes"))
    two = clash(names)
    if two:
        yield _clash_problem(two)


def _name_problem(name: str) -> Problem | None:
    try:
        if not isinstance(name, str):
            raise ZooError(f"{show(name)} is no text.")
        safe_path(name, "the name")
    except MtlError as error:
        return Problem("name", printable(name)[:200], f"cannot be stored: {error}", KEEP_OUT)
    return None


def _clash_problem(two: tuple[str, str]) -> Problem:
    message = f"is the same file as {two[1]} on systems that do not tell cases apart."
    return Problem("name", two[0], message, KEEP_OUT)


def _table(recorded: Recorded, files: Collection[str]) -> Iterator[Problem]:
    for name in files:
        if name not in recorded.files and name not in {MANIFEST, CARD}:
            yield Problem("stray", name, "is not in the entry's file table.", KEEP_OUT)


def _strangers(files: Collection[str]) -> Iterator[Problem]:
    for name in files:
        if not name.endswith((".json", TENSOR_SUFFIX)) and name != CARD:
            message = "is neither JSON nor safetensors."
            yield Problem("stray", name, message, KEEP_OUT)


def _contents(
    folder: Path, names: Collection[str], recorded: Recorded | Entry | None, limits: Limits
) -> Iterator[Problem]:
    manifest = recorded.manifest if recorded else None
    configs: dict[str, Any] = {}
    if manifest is not None and manifest.kind == "joint":
        yield from joint_problems(names, manifest)
    for name in names:
        if name.endswith(".json") and name != MANIFEST:
            try:
                configs[name] = load_json(folder / name, name, limits)
            except FileNotFoundError:
                continue  # check_files names it
            except ZooError as error:
                yield Problem("json", name, str(error), KEEP_OUT)
                continue
            yield from fit.config_problems(name, configs[name], manifest)
    for name in names:
        if not name.endswith(TENSOR_SUFFIX):
            continue
        try:
            header = read_header(folder / name, name, limits)
            if manifest is not None:
                shapes = {key: (info.dtype, info.shape) for key, info in header.tensors.items()}
                yield from fit.tensor_problems(name, shapes, manifest, configs)
            if not predictions_of(name):
                wrong = non_finite(folder / name, limits)
                if wrong:
                    message = f"holds NaN or infinite weights, first in {show(wrong)}."
                    yield Problem("values", name, message, KEEP_OUT)
                elif name == SHARES and manifest is not None:
                    yield from _shares(folder, manifest, shapes)
        except FileNotFoundError:
            continue
        except ZooError as error:
            if recorded is None:  # check_tensors has named it otherwise
                yield Problem("tensors", name, str(error), KEEP_OUT)


def _shares(folder: Path, manifest: Manifest, shapes: fit.Shapes) -> Iterator[Problem]:
    if share_problems(shapes, manifest):
        return  # named by mtl.zoo.expected_shapes
    try:
        check_shares(folder, manifest)
    except ZooError as error:
        yield Problem("values", SHARES, str(error), KEEP_OUT)


def non_finite(path: Path, limits: Limits | None = None) -> str | None:
    """The first tensor of a safetensors file that holds NaN or infinity, or None.

    Raises:
        ZooError: the file cannot be read.
    """
    header = read_header(path, path.name, limits)
    for name, data in pieces(path, header, path.name):
        if not _finite(data, header.tensors[name].dtype):
            return name
    return None


def _finite(data: bytes, dtype: str) -> bool:
    kind: Any
    if dtype in {"F16", "F32", "F64"}:
        kind = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]
        values = np.frombuffer(data, kind)
        # Models compute in fp32: what is beyond it becomes infinite when it is loaded.
        return bool((np.abs(values) <= np.finfo(np.float32).max).all())
    if dtype == "BF16":  # numpy has none; all bits of the exponent set means NaN or infinity
        bits = np.frombuffer(data, "<u2") & 0x7F80
        return not bool((bits == 0x7F80).any())
    return True


def _raise(limit: str) -> str:
    return f"If you trust it, raise the limit: MTL_LIMITS={limit}=…"
