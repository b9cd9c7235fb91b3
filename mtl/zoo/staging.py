"""Temporary folders of the zoo: filled by one process, renamed into place, or removed.

A staging folder ``.tmp-<name>-<random>`` stands beside the entry it becomes, and its writer holds
``.tmp-<name>-<random>.lock`` as long as it lives. After ``kill -9`` the folder stays, the lock does
not (the system drops it): readers skip such names, and :func:`clear` removes exactly those whose
lock nobody holds. Whoever stages the same entry again takes along what could not be removed then.

:func:`guarded` is the one lock of a whole zoo: sources are looked for, and entries removed, by one
process at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mtl.errors import MtlError, RunError
from mtl.files import TEMPORARY, sync_folder
from mtl.zoo.place import zoo_option

LOCK_SUFFIX = ".lock"
ZOO_LOCK = ".lock"
"""The file in the root of a zoo that :func:`guarded` locks; it stays, and says nothing."""
PATIENCE = 60.0
"""Seconds to wait for it: what is done under it takes less than one."""

_LOG = logging.getLogger("mtl.zoo")


def cannot(doing: str, error: OSError) -> RunError:
    """The one error for whatever the system refuses while ``doing`` something in the zoo."""
    reason = error.strerror or str(error)
    return RunError(
        f"Cannot {doing}: {reason}. Nothing was stored or changed; free the space or make the "
        "folder writable (or choose another --zoo), then run the same command again."
    )


@contextlib.contextmanager
def staging(target: Path, root: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside ``target``, locked for the block, removed after it.

    A block that renamed the folder away has stored it; what is still there at the end goes, with
    the parents that were made for it, however the block ends.

    Raises:
        RunError: the folder cannot be made.
    """
    _clear_earlier(target, root)
    try:
        folder, lock = _begin(target)
    except OSError as error:
        prune(target.parent, root)
        raise cannot(f"write into the zoo at {target.parent}", error) from error
    try:
        yield folder
    finally:
        _discard(folder, root)
        # Unlinked while held: whoever opened it meanwhile sees that it is gone (see _begin).
        with contextlib.suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()
        prune(target.parent, root)


def _begin(target: Path) -> tuple[Path, FileLock]:
    while True:
        target.parent.mkdir(parents=True, exist_ok=True)
        name = f"{TEMPORARY}{target.name}-{secrets.token_hex(6)}"
        lock = FileLock(target.parent / f"{name}{LOCK_SUFFIX}", timeout=0)
        # Between these steps a cleaner may take the lock file for a dead one, or a remover may
        # prune the folders above: both show here, and the next turn starts with a new name.
        try:
            lock.acquire()
        except Timeout:
            continue
        except FileNotFoundError:
            if target.parent.is_dir():
                raise
            continue
        try:
            if Path(lock.lock_file).exists():
                (target.parent / name).mkdir()
                return target.parent / name, lock
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(lock.lock_file)
            lock.release()
            raise
        lock.release()


def _clear_earlier(target: Path, root: Path) -> None:
    """Remove what earlier runs for ``target`` left: killed ones, and ones that could not clean."""
    ours = re.compile(rf"{re.escape(TEMPORARY + target.name)}-[0-9a-f]{{12}}")
    try:
        found = [path for path in target.parent.iterdir() if ours.fullmatch(path.name)]
    except OSError:
        return  # not there yet, or whoever stages finds out what is wrong
    for path in found:
        try:
            clear(path, root)
        except MtlError as error:  # as it was: no reason not to go on
            _LOG.info("%s", error)


def _discard(folder: Path, root: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass  # it was renamed: stored
    except OSError as error:
        _LOG.warning(
            "the temporary %s could not be removed (%s); the next run for the same entry takes it "
            "along, or 'python -m mtl.zoo fsck --fix%s'.",
            folder,
            error.strerror or error,
            zoo_option(root),
        )


@contextlib.contextmanager
def guarded(root: Path, doing: str) -> Iterator[None]:
    """Hold the zoo's lock for the block, waiting for whoever holds it.

    An entry is removed in it, after a look at who needs it, and a composition is stored in it,
    after a look at whether its sources are there: so neither happens between the other's two steps.

    Raises:
        RunError: the system refuses, or somebody holds it for longer than :data:`PATIENCE`.
    """
    lock = FileLock(root / ZOO_LOCK, timeout=PATIENCE, mode=0o666)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RunError(
            f"Cannot {doing}: another process has held {root / ZOO_LOCK} for {PATIENCE:.0f} "
            "seconds. See what is at work in this zoo, then run the same command again."
        ) from error
    except OSError as error:
        raise cannot(doing, error) from error
    try:
        yield
    finally:
        lock.release()


def prune(folder: Path, root: Path) -> None:
    """Remove ``folder`` and the folders above it while they are empty, up to ``root`` (kept)."""
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        folder = folder.parent


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder`` to disk."""
    for current, _, names in os.walk(folder):
        for name in names:
            handle = os.open(os.path.join(current, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(current))


def sync_parents(folder: Path, root: Path) -> None:
    """Flush ``folder`` and the folders above it, ``root`` included, to disk."""
    while True:
        sync_folder(folder)
        if folder == root or root not in folder.parents:
            return
        folder = folder.parent


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is a temporary of ours, or the lock of one."""
    return name.startswith(TEMPORARY)


def is_dead(path: Path) -> bool:
    """Whether the temporary ``path`` (a folder, or a lock file) was left by a killed process.

    A writer makes its lock before its folder and removes its folder before its lock, so a folder
    that is still there while the lock is free, or gone, has no writer. A free lock that guards no
    folder is tidied away without a word: it may be one that this very question has made.
    """
    lock_file, folder = _pair(path)
    if not lock_file.is_file():
        return os.path.lexists(path)
    try:
        with FileLock(lock_file, timeout=0):
            if os.path.lexists(folder):
                return True
            lock_file.unlink(missing_ok=True)
            return False
    except Timeout:
        return False
    except OSError:  # a zoo that only can be read: nobody writes in it
        return os.path.lexists(folder)


def clear(path: Path, root: Path) -> bool:
    """Remove a dead temporary and its lock; return whether there was one.

    Raises:
        RunError: the system refuses.
    """
    lock_file, folder = _pair(path)
    if not is_dead(path):
        return False
    try:
        with FileLock(lock_file, timeout=0):
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
            else:
                folder.unlink(missing_ok=True)
            lock_file.unlink(missing_ok=True)
    except (Timeout, FileNotFoundError):
        return False  # another process is clearing it
    except OSError as error:
        raise cannot(f"remove the temporary {path}", error) from error
    prune(path.parent, root)
    return True


def _pair(path: Path) -> tuple[Path, Path]:
    """Lock file and folder of a temporary, given either."""
    folder = path.with_name(path.name.removesuffix(LOCK_SUFFIX))
    return folder.with_name(f"{folder.name}{LOCK_SUFFIX}"), folder
