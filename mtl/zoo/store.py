"""The local zoo: entries found by their manifests, written whole, removed whole."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mtl.errors import RequestError, ZooError
from mtl.files import slug, user_path
from mtl.zoo import check, commit, removal
from mtl.zoo.entry import Entry, again_text, gone, remedy
from mtl.zoo.find import find
from mtl.zoo.manifest import Manifest, Recorded, read_manifest
from mtl.zoo.names import MANIFEST, printable, safe_name, safe_path
from mtl.zoo.places import natural, places
from mtl.zoo.problem import Problem
from mtl.zoo.staging import guarded, staging
from mtl.zoo.summary import Index, Mark, Summary, mark_of, summarise

DEFAULT_ROOT = "adapters_zoo"
_LOG = logging.getLogger("mtl.zoo")
_HEX = re.compile(r"[0-9a-f]{6,64}")


def base_slug(base_id: str, fingerprint: str) -> str:
    """Folder name of a base: slug of its Hub id or folder and the first 8 of its fingerprint."""
    return f"{slug(base_id)}-{fingerprint[:8]}"


def open_zoo(root: str | Path | None = None) -> Zoo:
    """The zoo at ``root``, else at ``$MTL_ZOO``, else at ``./adapters_zoo``. Creates nothing.

    Raises:
        RequestError: there is something at that place that is not a folder.
    """
    path = user_path(root or os.environ.get("MTL_ZOO") or DEFAULT_ROOT, "--zoo or MTL_ZOO")
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
        self._read: dict[Path, tuple[Mark, Recorded]] = {}
        self._index = Index(self.root)
        self._named: set[Problem] = set()

    def entries(self, **wanted: Any) -> list[Entry]:
        """All readable entries with these manifest fields, sorted by reference.

        Temporaries are skipped; a damaged manifest is put into :attr:`problems` and logged once.
        The files of an entry are not looked at: see :meth:`load_check`.

        Args:
            wanted: as for :meth:`summaries`.
        """
        return self.read(self.summaries(**wanted))

    def read(self, listed: Iterable[Summary | Entry]) -> list[Entry]:
        """The entries of ``listed``, without those that are gone or damaged since."""
        found = []
        for summary in listed:
            try:
                found.append(self._entry(self.root / summary.ref))
            except FileNotFoundError:
                continue
            except ZooError as error:
                self._problem(_damaged(summary.ref, error))
        return found

    def summaries(
        self,
        *,
        kind: str | None = None,
        task: str | None = None,
        suite: str | None = None,
        method: str | None = None,
        base: str | None = None,
        seed: int | None = None,
        runhash: str | None = None,
        below: str = "",
    ) -> list[Summary]:
        """What a listing shows of the entries with these fields, sorted by reference.

        Of ten thousand entries this takes a fraction of a second, since manifests that were not
        touched since they were last read are not read again (:mod:`mtl.zoo.summary`).

        Args:
            task: id (``glue/rte``) or name (``rte``); joint entries that contain it are listed,
                too (``kind="adapter"`` leaves them out).
            base: fingerprint of the base (or at least 8 of its first digits), or its id.
            runhash: the run's hash, or at least 8 of its first digits.
            below: only what lies in this folder of the zoo.
        """
        self.problems = []
        there, found = [], []
        for ref, mark in places(self.root, below, self._problem):
            summary = self._summary(ref, mark)
            if summary is None:
                continue
            there.append(ref)
            if (
                kind in (None, summary.kind)
                and (task is None or summary.covers(task))
                and suite in (None, summary.suite)
                and method in (None, summary.method)
                and (base in (None, summary.base) or _is(summary.fingerprint, base))
                and seed in (None, summary.seed)
                and (runhash is None or _is(summary.runhash, runhash))
            ):
                found.append(summary)
        if not below:
            self._index.keep(there)
        return sorted(found, key=lambda summary: natural(summary.ref))

    def get(self, key: str) -> Entry:
        """The entry called ``key``: a reference, its last parts, or the start of digest or runhash.

        The run's hash at the end of a reference may be left out.

        Raises:
            RequestError: none or several; names the closest one, or all that match.
            ZooError: it is there, but its manifest is damaged.
        """
        folder = find(self, key)
        try:
            return self._entry(folder)
        except FileNotFoundError as error:
            raise RequestError(f"{self.ref(folder)} was removed just now.") from error
        except ZooError as error:
            raise ZooError(f"{error} {remedy(self.ref(folder))}") from error

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

    def commit(self, folder: Path, ref: str, manifest: Manifest, *, orphan: bool = False) -> Entry:
        """Store the staged ``folder`` as ``ref``: write manifest and card, sync, rename.

        Any number of processes may do so at once. The same digest at the same place is success:
        the entry that is there is returned, and ``folder`` goes when its block ends. A warning is
        logged where another entry of the task is nearly the same (:mod:`mtl.zoo.twins`).

        Args:
            orphan: store a composition although a source of it is not in the zoo.

        Raises:
            ZooError: another digest is there already, a source is not there, the manifest or a
                file cannot be stored, or another process removed the entry at once.
            RunError: the system refuses (full disk, read-only); nothing was stored.
        """
        target = self.path(ref)
        existing = self._store(folder, target, ref, manifest, orphan)
        while True:
            try:
                entry = self._entry(target)
                if existing:
                    self.load_check(entry)
                break
            except (FileNotFoundError, ZooError) as error:
                if os.path.lexists(target):
                    if isinstance(error, FileNotFoundError):
                        continue  # removed and stored again by other processes
                    raise
                if not existing:
                    raise ZooError(
                        f"{ref} was stored, and at once removed by another process."
                    ) from error
                existing = self._store(folder, target, ref, manifest, orphan)
        if not existing:
            from mtl.zoo.twins import warn_of_twin

            warn_of_twin(self, entry)
        return entry

    def _store(
        self, folder: Path, target: Path, ref: str, manifest: Manifest, orphan: bool
    ) -> bool:
        if orphan or not manifest.parents:
            return commit.store(folder, target, self.root, ref, manifest)
        with guarded(self.root, f"store {ref} in the zoo {self.root}"):
            there = {summary.digest for summary in self.summaries()}
            for parent in manifest.parents:
                if parent["digest"] not in there:
                    raise ZooError(
                        f"Cannot store {ref}: its source {parent['ref']} (digest "
                        f"{parent['digest'][:12]}…) is not in the zoo any more; another process "
                        "removed it. Nothing was stored. Train that source again, then run the "
                        "same command."
                    )
            return commit.store(folder, target, self.root, ref, manifest)

    def record_verified(self, entry: Entry, verified: dict[str, Any] | None) -> Entry:
        """Replace the ``verified`` record of a stored entry (and its card); its digest stays.

        Raises:
            ZooError: the entry is gone or damaged.
            RunError: the system refuses; the entry is as it was.
        """
        with staging(entry.folder, self.root) as folder:
            commit.rewrite(folder, entry.folder, self._entry(entry.folder), verified)
        return self._entry(entry.folder)

    def migrate(self, entry: Entry) -> Entry:
        """Write an entry's manifest (and card) in the current schema version; its digest stays.

        Raises:
            ZooError: the entry is gone or damaged.
            RunError: the system refuses; the entry is as it was.
        """
        self.load_check(entry)
        found = self.record_verified(entry, entry.manifest.verified)
        if found.digest != entry.digest:
            raise AssertionError("a migration changed a digest")
        return found

    def load_check(self, entry: Entry) -> None:
        """Check every file of the entry's table (there, size, sha256) before something loads it.

        Raises:
            ZooError: names the file, what was expected and found, and what to do.
        """
        for problem in check.check_files(entry.folder, entry.files):
            if not self.holds(entry):
                raise gone(entry.ref)
            raise ZooError(
                f"The entry {entry.ref} is damaged: {problem.path} {problem.message} Remove it "
                f"(python -m mtl.zoo rm {entry.ref}), then {again_text(entry)}"
            )

    def holds(self, entry: Entry) -> bool:
        """Whether ``entry`` is still there, and the same."""
        try:
            return self._entry(entry.folder).digest == entry.digest
        except (OSError, ZooError):
            return os.path.lexists(entry.folder / MANIFEST)  # there, and damaged

    @contextlib.contextmanager
    def reading(self, *entries: Entry) -> Iterator[None]:
        """Read files of ``entries`` in the block.

        Raises:
            ZooError: the block failed, and one of the entries was removed meanwhile, which is what
                is said then, whatever it was that missed its files.
        """
        try:
            yield
        except Exception as error:
            for entry in entries:
                if not self.holds(entry):
                    raise gone(entry.ref) from error
            raise

    def users(self, digest: str, ref: str | None = None) -> list[Entry]:
        """Entries that have the entry of this digest (or, if given, at ``ref``) as a parent."""
        return self.read(
            summary
            for summary in self.summaries()
            if any(known == digest or place == ref for known, place in summary.parents)
        )

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

    def fsck(self, progress: Any = None, jobs: int | None = None) -> list[Problem]:
        """Check everything below the root; see :func:`mtl.zoo.fsck.fsck`."""
        from mtl.zoo.fsck import fsck

        return fsck(self, progress, jobs)

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
        ref = self.ref(folder)
        recorded = self._recorded(folder, mark_of((folder / MANIFEST).lstat()))
        return Entry(
            folder,
            ref,
            recorded.manifest,
            recorded.digest,
            recorded.files,
            recorded.schema_version,
        )

    def _recorded(self, folder: Path, mark: Mark) -> Recorded:
        path = folder / MANIFEST
        known = self._read.get(folder)
        if known is None or known[0] != mark:
            ref = self.ref(folder)
            if not stat.S_ISREG(path.lstat().st_mode):
                raise ZooError(f"{ref}: {MANIFEST} is not a regular file.")
            known = (mark, read_manifest(path, ref))
            self._read[folder] = known
        return known[1]

    def _summary(self, ref: str, mark: Mark) -> Summary | None:
        """The summary of an entry, from the index or its manifest; None if that cannot be read."""
        summary = self._index.get(ref, mark)
        if summary is None:
            try:
                recorded = self._recorded(self.root / ref, mark)
                summary = summarise(ref, recorded, self._test(ref, recorded))
            except FileNotFoundError:
                return None  # removed since it was listed
            except ZooError as error:
                self._problem(_damaged(ref, error))
                return None
            self._index.put(ref, mark, summary)
        return summary

    def _test(self, ref: str, recorded: Recorded) -> dict[str, Any] | None:
        """The headline with its caveat; computed, where none is recorded, if it looks certain."""
        found = recorded.manifest.headline()
        if found is None or "caveat" in found or (found["stderr"] and found["value"] not in (0, 1)):
            return found
        from mtl.zoo.caveats import headline

        return headline(
            Entry(self.root / ref, ref, recorded.manifest, recorded.digest, recorded.files)
        )

    def _problem(self, problem: Problem) -> None:
        self.problems.append(problem)
        if problem not in self._named:
            self._named.add(problem)
            _LOG.warning("skipped %s", printable(problem))


def _damaged(ref: str, error: ZooError) -> Problem:
    return Problem("manifest", ref, str(error), remedy(ref))


def _is(value: str, wanted: str | None) -> bool:
    """Whether ``wanted`` is the hash ``value`` or at least 8 of its first digits."""
    return wanted is not None and len(wanted) >= 8 and value.startswith(wanted)
