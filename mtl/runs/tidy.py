"""Run folders and encoded data that nothing needs any more: found first, removed when asked to."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from mtl.engine.folder import TRIAL, RunFolder
from mtl.errors import RunError, ZooError
from mtl.files import read_json
from mtl.zoo.garbage import Garbage, size_of

if TYPE_CHECKING:
    from mtl.zoo import Zoo

_RUN = re.compile(r"[0-9a-f]{64}")
_CACHED = re.compile(r"[0-9a-f]{64}\.safetensors")
DAYS = 30
"""Encoded data that were not used for so many days are garbage."""


def run_garbage(runs: Path, zoo: Zoo, *, interrupted: bool = False) -> Iterator[Garbage]:
    """Run folders that lead nowhere.

    A run is kept while a process holds it, while its entry is in the zoo (its events are the source
    of curves), and while it has a resume point or is a trial of a search, unless ``interrupted``
    says that nobody will go on.
    Folders that are not called like a run are not looked at.
    """
    known = {summary.digest for summary in zoo.summaries()}
    for path in sorted(runs.iterdir()) if runs.is_dir() else ():
        if not _RUN.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            continue
        reason = _reason(RunFolder(path), known, zoo, interrupted)
        if reason and not _held(path):
            yield Garbage("run", str(path), size_of(path), reason)


def cache_garbage(cache: Path, days: float = DAYS) -> Iterator[Garbage]:
    """Encoded data that were neither written nor read for ``days``; they can be made again."""
    limit = time.time() - days * 86400
    for path in sorted(cache.glob("*/*.safetensors")) if cache.is_dir() else ():
        if _CACHED.fullmatch(path.name) and not path.is_symlink():
            found = path.stat()
            if max(found.st_mtime, found.st_atime) < limit:
                yield Garbage("cache", str(path), found.st_size, f"not used for {days:g} days")


def remove(item: Garbage) -> bool:
    """Remove one finding; False if it is gone, or a process has taken it up meanwhile.

    Raises:
        RunError: the system refuses.
    """
    path = Path(item.path)
    try:
        if item.kind != "run":
            path.unlink()
            return True
        lock = path / "lock"
        with FileLock(lock, timeout=0):
            shutil.rmtree(path)
        return True
    except (Timeout, FileNotFoundError):
        return not os.path.lexists(path)
    except OSError as error:
        raise RunError(f"Cannot remove {path}: {error.strerror or error}.") from error


def _reason(run: RunFolder, known: set[str], zoo: Zoo, interrupted: bool) -> str | None:
    result = run.path / "result.json"
    if result.is_file():
        try:
            found = read_json(result)
        except ZooError:
            found = None
        digest = found.get("digest") if isinstance(found, dict) else None
        if not isinstance(digest, str):
            return None  # damaged by something else than us: for a person to look at
        return None if digest in known else f"its entry is not in the zoo {zoo.root}"
    if run.point.is_file():
        return "interrupted; its command would go on from here" if interrupted else None
    if (run.path / TRIAL).is_file():  # the same search costs nothing as long as it is there
        return "a trial of a search" if interrupted else None
    return "was killed before its first resume point"


def _held(path: Path) -> bool:
    lock = path / "lock"
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except (Timeout, OSError):
        return True
