"""The local zoo: entries found by their manifests, written whole, removed whole."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl.errors import RequestError, RunError, ZooError, did_you_mean
from mtl.files import slug
from mtl.zoo import check, commit, removal
from mtl.zoo.manifest import SCHEMA_VERSION, Manifest, Recorded, read_manifest
from mtl.zoo.names import MANIFEST, is_safe_name, printable, safe_name, safe_path
from mtl.zoo.problem import Problem
from mtl.zoo.staging import is_temporary, staging

DEFAULT_ROOT = "adapters_zoo"
_LOG = logging.getLogger("mtl.zoo")
_HEX = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True)
class Entry:
    """One stored adapter, composition or joint model.

    Attributes:
        folder: where it lies.
        ref: its posix path relative to the root of the zoo.
        manifest: what it is.
        digest: recomputed from the manifest and its file table (and equal to the stored one).
        files: relative posix name → ``{"sha256", "bytes"}``, of safetensors files with their
            ``"tensors"`` from schema version 2 on (manifest and card are not in it).
        schema_version: that of the ``manifest.json`` on the disk.
    """

    folder: Path
    ref: str
    manifest: Manifest
    digest: str
    files: dict[str, dict[str, Any]]
    schema_version: int = SCHEMA_VERSION


def base_slug(base_id: str, fingerprint: str) -> str:
    """Folder name of a base: slug of its Hub id or folder and the first 8 of its fingerprint."""
    return f"{slug(base_id)}-{fingerprint[:8]}"


def open_zoo(root: str | Path | None = None) -> Zoo:
    """The zoo at ``root``, else at ``$MTL_ZOO``, else at ``./adapters_zoo``. Creates nothing.

    Raises:
        RequestError: there is something at that place that is not a folder.
    """
    path = Path(root or os.environ.get("MTL_ZOO") or DEFAULT_ROOT).expanduser()
    if path.exists() and not path.is_dir():
        raise RequestError(f"The zoo {path} is a file, not a folder: choose another --zoo.")
    return Zoo(path)


class Zoo:
    """The entries below one folder.

    Attributes:
        root: the folder, absolute.
        problems: what the last :meth:`entries` had to skip (each is also logged once).
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.problems: list[Problem] = []
        self._read: dict[Path, tuple[tuple[int, ...], Recorded]] = {}
        self._named: set[Problem] = set()

    def entries(
        self,
        *,
        kind: str | None = None,
        task: str | None = None,
        suite: str | None = None,
        method: str | None = None,
        base: str | None = None,
        seed: int | None = None,
        runhash: str | None = None,
    ) -> list[Entry]:
        """All readable entries with these manifest fields, sorted by reference.

        Temporaries are skipped; a damaged manifest is put into :attr:`problems` and logged once.
        The files of an entry are not looked at: see :meth:`load_check`.

        Args:
            task: id (``glue/rte``) or name (``rte``).
            base: fingerprint of the base (or at least 8 of its first digits), or its id.
            runhash: the run's hash, or at least 8 of its first digits.
        """
        self.problems = []
        found = []
        for folder in self._folders():
            try:
                entry = self._entry(folder)
            except FileNotFoundError:
                continue  # removed since it was listed
            except ZooError as error:
                ref = self.ref(folder)
                self._problem(Problem("manifest", ref, str(error), remedy(ref)))
                continue
            fields = entry.manifest
            if (
                kind in (None, fields.kind)
                and task in (None, fields.task["id"], fields.task["name"])
                and suite in (None, fields.suite)
                and method in (None, fields.method)
                and (base in (None, fields.base["id"]) or _is(fields.base["fingerprint"], base))
                and seed in (None, fields.seed)
                and (runhash is None or _is(fields.runhash, runhash))
            ):
                found.append(entry)
        return sorted(found, key=lambda entry: natural(entry.ref))

    def get(self, key: str) -> Entry:
        """The entry called ``key``: a reference, its last parts, or the start of digest or runhash.

        The run's hash at the end of a reference may be left out.

        Raises:
            RequestError: none or several; names the closest one, or all that match.
            ZooError: it is there, but its manifest is damaged.
        """
        direct = self._direct(key)
        if direct is not None:
            try:
                return self._entry(direct)
            except ZooError as error:
                raise ZooError(f"{error} {remedy(self.ref(direct))}") from error
        entries = self.entries()
        end = f"/{key.strip('/')}"
        matches = [
            entry
            for entry in entries
            # the run's hash may be left out: entail/scalearn/seed0
            if f"/{entry.ref}".endswith(end) or f"/{entry.ref.rpartition('-')[0]}".endswith(end)
        ]
        if not matches and _HEX.fullmatch(key):
            matches = [
                entry
                for entry in entries
                if entry.digest.startswith(key) or entry.manifest.runhash.startswith(key)
            ]
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = "\n  ".join(f"{entry.ref}  {entry.digest[:12]}" for entry in matches)
            raise RequestError(f"{key!r} is ambiguous; say which one:\n  {listed}")
        if not entries:
            raise RequestError(f"There is no entry {key!r}: the zoo {self.root} is empty.")
        guess = did_you_mean(key, [entry.ref for entry in entries])
        raise RequestError(
            f"There is no entry {printable(key)!r} among the {len(entries)} of the zoo "
            f"{self.root}.{guess} 'mtl zoo ls' lists them; give a reference, its last parts, or "
            "at least 6 digits of a digest or runhash."
        )

    def location(
        self, base_slug: str, suite: str, task: str, method: str, seed: int, runhash: str
    ) -> str:
        """``<base>/<suite>/<task>/<method>/seed<N>-<runhash8>``, the reference of a new entry.

        Raises:
            RequestError: a part cannot be a folder name.
        """
        if seed < 0 or not _HEX.fullmatch(runhash) or len(runhash) < 8:
            raise RequestError(
                f"seed {seed} and runhash {runhash!r} make no place in the zoo: a seed is at "
                "least 0, a runhash at least 8 lower-case hex digits."
            )
        parts = {"base": base_slug, "suite": suite, "task": task, "method": method}
        named = [safe_name(name, what) for what, name in parts.items()]
        return "/".join([*named, f"seed{seed}-{runhash[:8]}"])

    @contextlib.contextmanager
    def stage(self, ref: str) -> Iterator[Path]:
        """A temporary folder to fill for ``ref``; removed after the block unless it was committed.

        Raises:
            RequestError: ``ref`` is no plain relative path.
            RunError: the folder cannot be made (read-only zoo, full disk).
        """
        with staging(self.path(ref), self.root) as folder:
            yield folder

    def commit(self, folder: Path, ref: str, manifest: Manifest) -> Entry:
        """Store the staged ``folder`` as ``ref``: write manifest and card, sync, rename.

        Any number of processes may do so at once. The same digest at the same place is success:
        the entry that is there is returned, and ``folder`` goes when its block ends.

        Raises:
            ZooError: another digest is there already, the manifest or a file cannot be stored.
            RunError: the system refuses (full disk, read-only); nothing was stored.
        """
        target = self.path(ref)
        existing = commit.store(folder, target, self.root, ref, manifest)
        entry = self._entry(target)
        if existing:
            self.load_check(entry)
        return entry

    def record_verified(self, entry: Entry, verified: dict[str, Any]) -> Entry:
        """Replace the ``verified`` record of a stored entry (and its card); its digest stays.

        Raises:
            ZooError: the entry is gone or damaged.
            RunError: the system refuses; the entry is as it was.
        """
        with staging(entry.folder, self.root) as folder:
            commit.rewrite(folder, entry.folder, self._entry(entry.folder), verified)
        return self._entry(entry.folder)

    def load_check(self, entry: Entry) -> None:
        """Check every file of the entry's table (there, size, sha256) before something loads it.

        Raises:
            ZooError: names the file, what was expected and found, and what to do.
        """
        for problem in check.check_files(entry.folder, entry.files):
            raise ZooError(
                f"The entry {entry.ref} is damaged: {problem.path} {problem.message} Remove it "
                f"(mtl zoo rm {entry.ref}), then train again: {printable(entry.manifest.command)}"
            )

    def users(self, digest: str, ref: str | None = None) -> list[Entry]:
        """Entries that have the entry of this digest (or, if given, at ``ref``) as a parent."""
        return [
            entry
            for entry in self.entries()
            if any(p["digest"] == digest or p["ref"] == ref for p in entry.manifest.parents)
        ]

    def remove(self, ref: str, force: bool = False) -> str:
        """Remove one entry; see :meth:`remove_all`."""
        return self.remove_all([ref], force)[0]

    def remove_all(self, keys: Sequence[str], force: bool = False) -> list[str]:
        """Remove entries, each atomically (renamed away first); return their references.

        Args:
            keys: as for :meth:`get`; the reference of a damaged entry works, too.
            force: remove although compositions that stay need an entry.

        Raises:
            RequestError: a key is unknown, or a composition that is not itself removed needs an
                entry (names them); nothing was removed.
            RunError: the system refuses.
        """
        return removal.remove_all(self, keys, force)

    def fsck(self, progress: Any = None) -> list[Problem]:
        """Check everything below the root; see :func:`mtl.zoo.fsck.fsck`."""
        from mtl.zoo.fsck import fsck

        return fsck(self, progress)

    def clean(self) -> list[str]:
        """Remove what killed writers left; return the paths. Live temporaries stay."""
        from mtl.zoo.fsck import clean

        return clean(self)

    def path(self, ref: str) -> Path:
        """Where ``ref`` lies, or would lie.

        Raises:
            RequestError: ``ref`` is no plain relative path.
            ZooError: a folder on the way is a symbolic link.
        """
        path = self.root / safe_path(ref, "reference")
        for step in (path, *path.parents):
            if step == self.root:
                break
            if step.is_symlink():
                raise ZooError(
                    f"{step} is a symbolic link to {os.readlink(step)!r}; links are not followed "
                    "in a zoo. Replace it by what it points to."
                )
        return path

    def ref(self, folder: Path) -> str:
        """The reference of a folder below the root."""
        return folder.relative_to(self.root).as_posix()

    def _entry(self, folder: Path) -> Entry:
        path = folder / MANIFEST
        found = path.lstat()
        mark = (found.st_mtime_ns, found.st_size, found.st_ino)
        ref = self.ref(folder)
        known = self._read.get(folder)
        if known is None or known[0] != mark:
            if path.is_symlink() or not path.is_file():
                raise ZooError(f"{ref}: {MANIFEST} is not a regular file.")
            known = (mark, read_manifest(path, ref))
            self._read[folder] = known
        recorded = known[1]
        return Entry(
            folder,
            ref,
            recorded.manifest,
            recorded.digest,
            recorded.files,
            recorded.schema_version,
        )

    def _folders(self) -> Iterator[Path]:
        """Folders with a manifest; nothing inside an entry, no temporaries, no links."""
        todo = [self.root]
        while todo:
            folder = todo.pop()
            try:
                with os.scandir(folder) as listing:
                    items = list(listing)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if folder == self.root:
                    raise RunError(
                        f"Cannot read the zoo {self.root}: {error.strerror or error}."
                    ) from error
                message = f"cannot be read: {error.strerror or error}."
                self._problem(Problem("unreadable", self.ref(folder), message, ""))
                continue
            if folder != self.root and any(item.name == MANIFEST for item in items):
                yield folder
                continue
            for item in items:
                if item.is_dir(follow_symlinks=False) and not item.name.startswith("."):
                    if is_safe_name(item.name):
                        todo.append(folder / item.name)
                    else:
                        self._problem(name_problem(self.ref(folder / item.name)))

    def _direct(self, key: str) -> Path | None:
        """The folder of an entry that ``key`` names by reference, or by a path that leads there."""
        candidates = [self.root / key.strip("/"), Path(key).absolute()]
        for candidate in candidates:
            with contextlib.suppress(ValueError, RequestError, OSError):
                ref = Path(os.path.normpath(candidate)).relative_to(self.root).as_posix()
                folder = self.path(ref)
                if (folder / MANIFEST).is_file() and not is_temporary(folder.name):
                    return folder
        return None

    def _problem(self, problem: Problem) -> None:
        self.problems.append(problem)
        if problem not in self._named:
            self._named.add(problem)
            _LOG.warning("skipped %s", printable(problem))


def remedy(ref: str) -> str:
    """What to do about an entry that cannot be read."""
    return f"Remove it (mtl zoo rm {ref}), then run again what made it."


def name_problem(path: str) -> Problem:
    """The finding for a folder or file whose name cannot travel."""
    return Problem(
        "name",
        printable(path),
        "has a name that cannot be used in a zoo; nothing in it is read.",
        "Rename it: letters, digits, '_', '-', '.' and '+'.",
    )


def natural(text: str) -> list[Any]:
    """Sort key that puts seed2 before seed10."""
    parts = re.split(r"(\d+)", text)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _is(value: str, wanted: str | None) -> bool:
    """Whether ``wanted`` is the hash ``value`` or at least 8 of its first digits."""
    return wanted is not None and len(wanted) >= 8 and value.startswith(wanted)
