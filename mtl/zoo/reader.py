"""Reading a zoo: entries found by their manifests, and what a person types to one of them."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mtl.zoo.check as check
from mtl.errors import MtlError, RequestError, ZooError, did_you_mean
from mtl.words import printable
from mtl.zoo.entry import Entry, again_text, gone, remedy
from mtl.zoo.homes import Homes
from mtl.zoo.manifest import Recorded, read_manifest
from mtl.zoo.merged import plain
from mtl.zoo.names import MANIFEST, safe_path
from mtl.zoo.place import option_of, zoo_option
from mtl.zoo.places import natural, places
from mtl.zoo.problem import Problem
from mtl.zoo.settings import differing, settings_of, settings_text
from mtl.zoo.staging import is_temporary
from mtl.zoo.summary import Index, Mark, Summary, mark_of, summarise

_LOG = logging.getLogger("mtl.zoo")
_HEX = re.compile(r"[0-9a-f]{6,64}")
SHOWN = 20
"""Entries that an ambiguous name lists."""


class ZooReader:
    """The entries below one folder, read only; :class:`mtl.zoo.store.Zoo` also writes.

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
        self._held: list[Summary] | None = None
        self._holds = 0

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
        below: str = "",
    ) -> list[Entry]:
        """All readable entries with these manifest fields, sorted by reference.

        Temporaries are skipped; a damaged manifest is put into :attr:`problems` and logged once.
        The files of an entry are not looked at: see :meth:`load_check`.

        The arguments are those of :meth:`summaries`.
        """
        listed = self.summaries(
            kind=kind,
            task=task,
            suite=suite,
            method=method,
            base=base,
            seed=seed,
            runhash=runhash,
            below=below,
        )
        return self.read(listed)

    def read(self, listed: Iterable[Summary | Entry]) -> list[Entry]:
        """The entries of ``listed``, without those that are gone or damaged since."""
        found = []
        for summary in listed:
            try:
                found.append(self._entry(self.root / summary.ref))
            except FileNotFoundError:
                continue
            except ZooError as error:
                self._problem(_damaged(summary.ref, self.root, error))
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
            suite: what the entry lies under, or belongs to (:mod:`mtl.zoo.homes`).
            task: id (``glue/rte``) or name (``rte``); joint entries that contain it are listed,
                too (``kind="adapter"`` leaves them out).
            base: fingerprint of the base (or at least 8 of its first digits), or its id.
            runhash: the run's hash, or at least 8 of its first digits.
            below: only what lies in this folder of the zoo.
        """
        homes = Homes()
        found = [
            summary
            for summary in self._listed(below)
            if kind in (None, summary.kind)
            and (task is None or summary.covers(task))
            and (suite is None or homes.has(suite, summary))
            and method in (None, summary.method)
            and (base in (None, summary.base) or _is(summary.fingerprint, base))
            and seed in (None, summary.seed)
            and (runhash is None or _is(summary.runhash, runhash))
        ]
        return found if self._held is not None else sorted(found, key=_order)

    @contextlib.contextmanager
    def one_look(self) -> Iterator[None]:
        """In the block, entries are those that were there when it was first asked for any.

        For who asks many times: every look goes through the whole zoo. Entries that are stored
        meanwhile are not seen.
        """
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                self._held = None

    def _listed(self, below: str) -> list[Summary]:
        """All summaries, or those of a folder; in order where they are held."""
        if self._held is not None:
            return [s for s in self._held if not below or f"{s.ref}/".startswith(f"{below}/")]
        self.problems = []
        walked = (self._summary(*place) for place in places(self.root, below, self._problem))
        found = [summary for summary in walked if summary is not None]
        if not below:
            self._index.keep(summary.ref for summary in found)
            if self._holds:
                self._held = found = sorted(found, key=_order)
        return found

    def at(self, ref: str) -> Entry | None:
        """The entry at this very place; None where there is none that can be read."""
        with contextlib.suppress(OSError, MtlError):
            return self._entry(self.path(ref))
        return None

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
            raise ZooError(f"{error} {remedy(self.ref(folder), self.root)}") from error

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
                f"(python -m mtl.zoo rm {entry.ref}{option_of(entry)}), then {again_text(entry)}"
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
                self._problem(_damaged(ref, self.root, error))
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


def find(zoo: ZooReader, key: str) -> Path:
    """The folder of the entry called ``key``; see :meth:`ZooReader.get`.

    Raises:
        RequestError: none or several; names the closest one, or all that match.
    """
    direct = _direct(zoo, key)
    if direct is not None:
        return direct
    listed = zoo.summaries()
    end, homes = f"/{key.strip('/')}", Homes()
    matches = [
        summary
        for summary in listed
        for refs in [homes.refs(summary)]
        # the run's hash may be left out: entail/scalearn/seed0
        if any(f"/{name}".endswith(end) for ref in refs for name in _names(ref))
    ]
    if not matches and _HEX.fullmatch(key):
        matches = [
            summary
            for summary in listed
            if summary.digest.startswith(key) or summary.runhash.startswith(key)
        ]
    matches = _own_places(matches)
    if len(matches) == 1:
        return zoo.root / matches[0].ref
    if matches:
        lines = "\n  ".join(_lines(zoo, matches[:SHOWN]))
        more = f"\n  … and {len(matches) - SHOWN} more" if len(matches) > SHOWN else ""
        raise RequestError(f"{printable(key)!r} is ambiguous; say which one:\n  {lines}{more}")
    if not listed:
        raise RequestError(f"There is no entry {printable(key)!r}: the zoo {zoo.root} is empty.")
    depth = key.strip("/").count("/") + 1  # of as many last parts, with and without the hash
    ends = ["/".join(summary.ref.split("/")[-depth:]) for summary in listed]
    plain = [end.rpartition("-")[0] for end in ends]
    guess = did_you_mean(key, [*plain, *ends, *(summary.ref for summary in listed)])
    raise RequestError(
        f"There is no entry {printable(key)!r} among the {len(listed)} of the zoo {zoo.root}."
        f"{guess} 'python -m mtl.zoo ls{zoo_option(zoo.root)}' lists them; give a reference, its "
        "last parts, or at least 6 digits of a digest or runhash."
    )


def _names(ref: str) -> tuple[str, ...]:
    """A reference, and what of it is enough: without the digest behind it, without the hash."""
    without = plain(ref)
    return ref, without, without.rpartition("-")[0]


def _own_places(found: Sequence[Summary]) -> list[Summary]:
    """Of results of one run the one at its own place, if that is among them."""
    own = {(s.runhash, s.settings) for s in found if plain(s.ref) == s.ref}
    return [s for s in found if plain(s.ref) == s.ref or (s.runhash, s.settings) not in own]


def _direct(zoo: ZooReader, key: str) -> Path | None:
    """The folder of an entry that ``key`` names by reference, or by a path that leads there."""
    for candidate in (zoo.root / key.strip("/"), Path(key).absolute()):
        with contextlib.suppress(ValueError, RequestError, OSError):
            ref = Path(os.path.normpath(candidate)).relative_to(zoo.root).as_posix()
            folder = zoo.path(ref)
            if (folder / MANIFEST).is_file() and not is_temporary(folder.name):
                return folder
    return None


def _lines(zoo: ZooReader, found: Sequence[Summary]) -> Iterator[str]:
    """Of each: reference, digest, score on dev, and the settings in which it differs."""
    settings: list[dict[str, Any]] = []
    for summary in found:
        settings.append({})  # what of a damaged entry is left
        with contextlib.suppress(RequestError, ZooError):
            settings[-1] = settings_of(zoo.get(summary.ref).manifest)
    for summary, own in zip(found, differing([None] * len(found), settings), strict=True):
        dev = "" if summary.dev is None else f"  dev {summary.metric} {summary.dev:.4f}"
        said = settings_text({key: value for key, value in own.items() if value is not None})
        yield f"{summary.ref}  {summary.digest[:12]}{printable(dev)}  {printable(said)}".rstrip()


def _damaged(ref: str, root: Path, error: ZooError) -> Problem:
    return Problem("manifest", ref, str(error), remedy(ref, root))


def _order(summary: Summary) -> list[Any]:
    return natural(summary.ref)


def _is(value: str, wanted: str | None) -> bool:
    """Whether ``wanted`` is the hash ``value`` or at least 8 of its first digits."""
    return wanted is not None and len(wanted) >= 8 and value.startswith(wanted)
