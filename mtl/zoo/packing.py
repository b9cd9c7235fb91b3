"""``pack`` and ``unpack``: entries in one file, without a Hub.

A ``.mtlzoo`` file is an uncompressed tar archive (ustar) of regular files and nothing else: per
entry, sources first, ``<ref>/manifest.json``, the files of its table in their order, and its card.
Every byte of it follows from the entries, so packing the same again gives the same file; ``tar xf``
makes a zoo folder of it.

An archive is a stranger's until it was read. Nothing is extracted by a library: we walk the headers
(512 bytes each, parsed by :class:`tarfile.TarInfo`), and a member that is not the one that has to
stand at its place is refused, whatever it is: a link, a device, a path that leads elsewhere, a name
twice. Manifests say which files follow, how large they are and their hashes. All of it is compared
before the first entry is stored; then each goes the way of a pulled one (:mod:`mtl.zoo.arrival`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mtl.errors import MtlError, RequestError, RunError, ZooError
from mtl.files import TEMPORARY, sha256_file, sync_folder, writing
from mtl.limits import current
from mtl.untrusted import parse_json
from mtl.words import printable
from mtl.zoo.arrival import check_sizes, take_in
from mtl.zoo.manifest import Recorded, check_recorded
from mtl.zoo.names import CARD, MANIFEST, clash, safe_path
from mtl.zoo.place import option_of
from mtl.zoo.sharing import Counting, Progress, Shared, missing, need_portable, rows, with_sources

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry
    from mtl.zoo.store import Zoo

SUFFIX = ".mtlzoo"
PIECE = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.DIRTYPE: "a folder",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


def pack(
    zoo: Zoo,
    keys: Sequence[str],
    file: Path,
    *,
    replace: bool = False,
    with_paths: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Shared:
    """Write entries of ``zoo``, each after the sources it needs, into one file, atomically.

    Args:
        keys: as for ``Zoo.get``; none for the whole zoo.
        replace: another file of this name gives way. The same content again is nothing to do.
        with_paths: see :func:`mtl.hub.push`.
        dry_run: say what would be packed.

    Raises:
        RequestError: a key names none or several, a source is missing, paths under a digest, an
            empty zoo; another file is there.
        ZooError: an entry is damaged.
        RunError: the system refuses; no file is left behind.
    """
    entries = with_sources(zoo, keys)
    if not entries:
        raise RequestError(f"The zoo {zoo.root} is empty: there is nothing to pack.")
    if not with_paths:
        need_portable(entries, "pack")
    if file.exists() and not file.is_file():
        raise RequestError(f"Cannot pack into {file}: it is there and is no file.")
    for entry in entries:
        zoo.load_check(entry)
    size = sum(item["bytes"] for entry in entries for item in entry.files.values())
    new = {entry.ref: entry.ref for entry in entries}
    if dry_run:
        return Shared(str(file), rows(entries, new, "packed"), size)
    count = Counting(size, progress)
    with writing(str(file)), _temporary(file) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
            for entry in entries:
                with zoo.reading(entry):
                    for name in (MANIFEST, *sorted(entry.files), CARD):
                        if name == CARD and not (entry.folder / name).is_file():
                            continue
                        _add(archive, entry, name)
                        count.add(entry.files[name]["bytes"] if name in entry.files else 0)
        if file.exists() and not replace:
            if sha256_file(file) != sha256_file(temporary):
                raise RequestError(
                    f"Cannot pack into {file}: another file is there. Choose another name, or pass "
                    "--replace."
                )
            return Shared(str(file), rows(entries, {}, "packed"), 0)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, file)
        sync_folder(file.parent)
    return Shared(str(file), rows(entries, new, "packed"), size)


@contextlib.contextmanager
def _temporary(file: Path) -> Iterator[Path]:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f"{TEMPORARY}{file.name[:100]}-")
    os.close(handle)
    try:
        os.chmod(name, 0o644)
        yield Path(name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _add(archive: tarfile.TarFile, entry: Entry, name: str) -> None:
    path = entry.folder / name
    info = tarfile.TarInfo(f"{entry.ref}/{name}")
    info.mode, info.size = 0o644, path.stat().st_size
    try:
        with path.open("rb") as stream:
            archive.addfile(info, stream)
    except ValueError as error:  # ustar holds 255 characters, in two parts
        raise RunError(
            f"Cannot pack {info.name}: its path has {len(info.name)} characters, more than a tar "
            f"archive holds. Copy the entry instead: python -m mtl.zoo copy {entry.ref} FOLDER"
            f"{option_of(entry)}"
        ) from error


@dataclass(frozen=True)
class Packed:
    """An entry in an archive: where its files begin, and how large they are."""

    ref: str
    recorded: Recorded
    members: dict[str, tuple[int, int]]

    @property
    def digest(self) -> str:
        return self.recorded.digest


def unpack(
    zoo: Zoo, file: Path, *, dry_run: bool = False, progress: Progress | None = None
) -> Shared:
    """Put the entries of a file that :func:`pack` wrote into the zoo.

    Args:
        dry_run: read and compare everything, and say what would be stored.

    Raises:
        RequestError: there is no such file.
        ZooError: it is no archive of ours, damaged, or hostile; nothing was stored. Or, after
            others of it were, an entry's content is not what may be in a zoo.
        RunError: another result is in an entry's place; the system refuses.
    """
    if not file.is_file():
        raise RequestError(f"There is no file {file} to unpack.")
    try:
        stream = file.open("rb")
    except OSError as error:
        raise RequestError(f"Cannot read {file}: {error.strerror or error}.") from error
    with stream:
        entries = read_archive(stream, file.name)
        new = missing(zoo, [(entry.ref, entry.recorded) for entry in entries], "unpack")
        wanted = [entry for entry in entries if entry.ref in new]
        _check_sources(zoo, entries, file.name)
        for entry in entries:
            _check_bytes(stream, entry, file.name)
        size = sum(check_sizes(entry.recorded, entry.ref) for entry in wanted)
        if not dry_run:
            count = Counting(size, progress)
            for entry in wanted:
                take_in(zoo, new[entry.ref], entry.recorded, partial(_fill, stream, entry, count))
    return Shared(str(zoo.root), rows(entries, new, "unpacked"), size)


def read_archive(stream: BinaryIO, where: str) -> list[Packed]:
    """The entries of an archive by its headers and manifests; contents are not compared yet.

    Raises:
        ZooError: no archive of ours; the first member that may not stand where it stands.
    """
    entries: list[Packed] = []
    digests: set[str] = set()
    refs: set[str] = set()
    reader = _Reader(stream, where)
    member = reader.next()
    while member is not None:
        ref, _, last = member.name.rpartition("/")
        if last != MANIFEST or not ref:
            raise reader.wrong(
                f"{printable(member.name)} stands where the {MANIFEST} of an entry should"
            )
        if member.size > current().json_bytes:
            raise reader.wrong(f"{member.name} has {member.size} bytes (limit json_bytes)")
        recorded = _manifest(reader, member, ref)
        if recorded.digest in digests or ref in refs:
            raise reader.wrong(f"the entry {ref} is there twice")
        check_sizes(recorded, f"{where}: {ref}")
        members = {MANIFEST: (member.start, member.size)}
        for name in sorted(recorded.files):
            member = reader.next()
            found = "its end" if member is None else printable(member.name)
            if member is None or member.name != f"{ref}/{name}":
                raise reader.wrong(f"{found} stands where {ref}/{name} should")
            expected = recorded.files[name]["bytes"]
            if member.size != expected:
                raise reader.wrong(
                    f"{member.name} has {member.size} bytes, its manifest says {expected}"
                )
            members[name] = (member.start, member.size)
        member = reader.next()
        if member is not None and member.name == f"{ref}/{CARD}":
            if member.size > current().json_bytes:
                raise reader.wrong(f"{member.name} has {member.size} bytes (limit json_bytes)")
            members[CARD] = (member.start, member.size)
            member = reader.next()
        entries.append(Packed(ref, recorded, members))
        digests.add(recorded.digest)
        refs.add(ref)
    if not entries:
        raise reader.wrong("it holds no entry")
    two = clash(refs)
    if two:
        raise reader.wrong(f"{two[0]} and {two[1]} cannot stand beside each other")
    return entries


@dataclass(frozen=True)
class _Member:
    name: str
    start: int
    size: int


class _Reader:
    """The headers of a tar archive, one after the other."""

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self.stream, self.where, self.place = stream, where, 0
        self.length = os.fstat(stream.fileno()).st_size

    def wrong(self, what: str) -> ZooError:
        return ZooError(
            f"{self.where} cannot be unpacked: {what}. Nothing was stored; ask whoever made it to "
            "pack it again."
        )

    def next(self) -> _Member | None:
        """The next member, a regular file with a safe name; None at the end. Raises ZooError."""
        self.stream.seek(self.place)
        block = self.stream.read(_BLOCK)
        if len(block) == _BLOCK and not any(block):
            self._end()
            return None
        if len(block) < _BLOCK:
            raise self.wrong(
                "it is cut: the end of the archive is missing" if self.place else "it is no archive"
            )
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            what = f"what stands at byte {self.place} is no header of a tar archive"
            raise self.wrong(what if self.place else "it is no tar archive") from error
        if info.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
            kind = _KINDS.get(info.type, f"no regular file (type {info.type!r})")
            raise self.wrong(f"{printable(info.name)[:200]} is {kind}")
        try:
            safe_path(info.name, "the name")
        except MtlError as error:
            raise self.wrong(printable(error).rstrip(".")) from error
        start = self.place + _BLOCK
        if info.size < 0 or info.size > current().file_bytes:
            raise self.wrong(f"{info.name} has {info.size} bytes (limit file_bytes)")
        if start + info.size > self.length:
            raise self.wrong(f"it is cut within {info.name}")
        self.place = start + -(-info.size // _BLOCK) * _BLOCK
        self.stream.seek(start + info.size)
        if any(self.stream.read(self.place - start - info.size)):
            raise self.wrong(f"something stands behind {info.name} that is no part of it")
        return _Member(info.name, start, info.size)

    def _end(self) -> None:
        """Only zeros may follow, no more than a tar archive is filled up with."""
        rest = self.stream.read(2 * tarfile.RECORDSIZE)
        if len(rest) < _BLOCK:
            raise self.wrong("it is cut: the end of the archive is missing")
        if any(rest) or len(rest) > tarfile.RECORDSIZE:
            raise self.wrong("something stands behind the end of the archive")


def _manifest(reader: _Reader, member: _Member, ref: str) -> Recorded:
    reader.stream.seek(member.start)
    where = f"{reader.where}: {ref}"
    try:
        return check_recorded(parse_json(reader.stream.read(member.size), where), where)
    except ZooError as error:
        raise reader.wrong(printable(error).rstrip(".")) from error


def _check_sources(zoo: Zoo, entries: Sequence[Packed], where: str) -> None:
    known = {entry.digest for entry in zoo.entries()}
    for entry in entries:
        for parent in entry.recorded.manifest.parents:
            if parent["digest"] not in known:
                raise ZooError(
                    f"{where} cannot be unpacked: {entry.ref} needs {parent['ref']} with digest "
                    f"{parent['digest'][:12]}…, which is neither before it in the archive nor in "
                    f"the zoo {zoo.root}. Nothing was stored; ask for an archive with its sources."
                )
        known.add(entry.digest)


def _check_bytes(stream: BinaryIO, entry: Packed, where: str) -> None:
    """Compare every file of an entry with the hash in its manifest."""
    for name, item in entry.recorded.files.items():
        found = hashlib.sha256()
        for piece in _pieces(stream, *entry.members[name]):
            found.update(piece)
        if found.hexdigest() != item["sha256"]:
            raise ZooError(
                f"{where} is damaged: {entry.ref}/{name} has the sha256 {found.hexdigest()[:16]}…, "
                f"its manifest says {item['sha256'][:16]}…. Nothing was stored; get the file again."
            )


def _fill(stream: BinaryIO, entry: Packed, count: Counting, folder: Path) -> None:
    for name, (start, size) in entry.members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as target:
            for piece in _pieces(stream, start, size):
                target.write(piece)
        count.add(size if name in entry.recorded.files else 0)


def _pieces(stream: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    stream.seek(start, io.SEEK_SET)
    while size > 0:
        piece = stream.read(min(PIECE, size))
        if not piece:  # cut by somebody since its headers were read: hashes will say so
            return
        yield piece
        size -= len(piece)
