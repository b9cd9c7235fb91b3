"""``push``: entries of a zoo to a repository of the Hub, in one commit.

What has to be sent is the difference between what the repository should hold and what it holds.
After the commit the difference is taken again, at the new commit: it must be empty. So whatever
broke before (a connection, an answer that got lost, another writer), doing it again is right, and
what has arrived is not sent twice.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, RunError, ZooError
from mtl.files import write_json
from mtl.hub.cards import check_license, entry_card, zoo_card
from mtl.hub.client import (
    NotThereError,
    RepoName,
    api,
    need_network,
    need_token,
    patiently,
    speaking,
)
from mtl.hub.index import INDEX, ROOT, Listed, index_json, listed
from mtl.hub.remote import Remote, RemoteFile, read_remote
from mtl.hub.stock import reader, write_stock_copies
from mtl.zoo.names import CARD, MANIFEST

if TYPE_CHECKING:
    from mtl.zoo import Entry, Zoo


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        repo: the repository.
        revision: the commit that now holds everything (None for a dry run into a new repository).
        entries: per entry ``{"ref", "digest", "path", "status", "reader"}``; status is ``pushed``
            or ``there``.
        files, bytes: what was (or, in a dry run, would be) sent.
        url: of the repository.
    """

    repo: str
    revision: str | None
    entries: list[dict[str, str]]
    files: int
    bytes: int
    url: str


@dataclass(frozen=True)
class _Plan:
    """Files to add (path in the repository → local file), paths to delete, what was found there."""

    add: dict[str, Path]
    delete: list[str]
    entries: list[dict[str, str]]


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
                    f"which is not in the zoo {zoo.root}. Restore it (mtl zoo pull), or leave the "
                    "composition out."
                )
            if source.digest not in path:  # a circle exists only in a zoo that somebody made up
                add(source, (*path, entry.digest))
        chosen.setdefault(entry.ref, entry)

    for entry in [zoo.get(key) for key in keys] or every:
        add(entry, ())
    return list(chosen.values())


def push(
    zoo: Zoo,
    keys: Sequence[str],
    repo: RepoName,
    *,
    private: bool = False,
    license: str | None = None,
    replace: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Put entries, with the sources that compositions need, into ``repo``, in one commit.

    A single entry lies at the root of the repository unless another one is there; several nest by
    their references. ``repo.revision`` is the branch, made where it is missing.

    Args:
        keys: as for ``Zoo.get``; none for the whole zoo.
        license: identifier for the cards.
        replace: put an entry in the place of another result with the same reference.
        dry_run: say what would be sent; nothing is made or changed.

    Raises:
        RequestError: unknown or unverified entries, no token, no right, offline, a repository of
            the other visibility, another result in an entry's place.
        RunError: network, Hub, rate limit.
        ZooError: an entry is damaged.
    """
    check_license(license)
    entries = with_sources(zoo, keys)
    if not entries:
        raise RequestError(f"The zoo {zoo.root} is empty: there is nothing to push.")
    for entry in entries:
        zoo.load_check(entry)
    _need_verified(entries)
    doing = f"push {len(entries)} entries to {repo}" if len(entries) > 1 else (
        f"push {entries[0].ref} to {repo}"
    )  # fmt: skip
    need_network(doing)
    need_token(doing)
    with tempfile.TemporaryDirectory(prefix="mtl-push-") as scratch:
        attempt = _Attempt(entries, repo, private, license, replace, Path(scratch), doing)
        return attempt.look() if dry_run else patiently(attempt.run)


def _need_verified(entries: Sequence[Entry]) -> None:
    missing = [entry.ref for entry in entries if entry.manifest.verified is None]
    if missing:
        lines = "\n  ".join(f"python -m mtl.zoo verify {ref}" for ref in missing)
        raise RequestError(
            f"{len(missing)} of {len(entries)} entries have no record of a second evaluation from "
            f"disk, and only verified results are pushed. Get it with:\n  {lines}"
        )


class _Attempt:
    """One push, which may be tried several times; prepared files are kept between attempts."""

    def __init__(
        self,
        entries: Sequence[Entry],
        repo: RepoName,
        private: bool,
        license: str | None,
        replace: bool,
        scratch: Path,
        doing: str,
    ) -> None:
        self.entries, self.repo, self.private = entries, repo, private
        self.license, self.replace, self.scratch, self.doing = license, replace, scratch, doing

    def run(self) -> Pushed:
        remote = self._open()
        plan = self._plan(remote)
        sent = len(plan.add) + len(plan.delete)
        size = sum(path.stat().st_size for path in plan.add.values())
        if not sent:
            return self._pushed(remote.revision, plan, 0, 0)
        revision = self._commit(remote, plan)
        after = read_remote(RepoName(self.repo.id, revision))
        if left := self._difference(after, plan):
            raise RunError(
                f"Cannot {self.doing}: the Hub took the commit {revision[:12]} but does not hold "
                f"what was sent: {', '.join(left[:5])}. Run the same command again."
            )
        return self._pushed(revision, plan, sent, size)

    def look(self) -> Pushed:
        """What :meth:`run` would do."""
        try:
            remote = read_remote(self.repo)
            self._check_visibility(remote)
            revision = remote.revision
        except NotThereError:
            remote, revision = Remote(self.repo, "", self.private, {}, {}), None
        plan = self._plan(remote)
        size = sum(path.stat().st_size for path in plan.add.values())
        return self._pushed(revision, plan, len(plan.add) + len(plan.delete), size)

    def _pushed(self, revision: str | None, plan: _Plan, files: int, size: int) -> Pushed:
        url = f"{api().endpoint}/{self.repo.id}"
        return Pushed(str(self.repo), revision, plan.entries, files, size, url)

    def _open(self) -> Remote:
        """The repository, and the branch, made where they are missing."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        client, name, branch = api(), self.repo.id, self.repo.revision
        with speaking(self.doing, self.repo):
            try:
                client.repo_info(name)
            except RepositoryNotFoundError:
                client.create_repo(name, private=self.private, exist_ok=True)
            if branch:
                try:
                    client.repo_info(name, revision=branch)
                except RevisionNotFoundError:
                    client.create_branch(name, branch=branch, exist_ok=True)
        remote = read_remote(self.repo)
        self._check_visibility(remote)
        return remote

    def _check_visibility(self, remote: Remote) -> None:
        if self.private and remote.private is False:
            raise RequestError(
                f"Cannot {self.doing}: {self.repo.id} is public, and --private was asked for. "
                "Choose another --repo, or make it private on its settings page."
            )

    def _places(self, remote: Remote) -> list[Listed]:
        """Where each entry goes: where it is already, the root for a single one, else its place.

        Raises:
            RequestError: another result is there.
        """
        places = []
        for entry in self.entries:
            there = remote.entries.get(entry.ref)
            root_taken = any(item.path == ROOT for item in remote.entries.values())
            alone = len(self.entries) == 1 and not root_taken
            path = there.path if there else ROOT if alone else entry.ref
            if there and there.digest != entry.digest and not self.replace:
                raise RequestError(
                    f"Cannot {self.doing}: {remote.where} holds another result as {entry.ref} "
                    f"(digest {there.digest[:12]}…; yours is {entry.digest[:12]}…). Pass --replace "
                    "to put yours in its place (the old one stays in the history), or choose "
                    "another --repo or --revision."
                )
            places.append(listed(entry, path))
        return places

    def _plan(self, remote: Remote) -> _Plan:
        places = self._places(remote)
        add: dict[str, Path] = {}
        delete: list[str] = []
        found = []
        for entry, place in zip(self.entries, places, strict=True):
            there = self._is_there(entry, place, remote)
            if not there:
                files = self._files(entry, place)
                add |= {place.at(name): path for name, path in files.items()}
                delete += self._stale(place, files, remote)
            found.append(
                {
                    "ref": entry.ref,
                    "digest": entry.digest,
                    "path": place.path,
                    "status": "there" if there else "pushed",
                    "reader": reader(entry.folder, entry.manifest),
                }
            )
        if add:
            add |= self._of_the_whole(remote, places)
        add = {
            path: local
            for path, local in add.items()
            if path not in remote.files or not remote.files[path].is_file(local)
        }
        return _Plan(add, delete, found)

    def _is_there(self, entry: Entry, place: Listed, remote: Remote) -> bool:
        """Whether the repository lists this digest and holds the files that make it up."""
        listed_there = remote.entries.get(entry.ref)
        return (
            listed_there is not None
            and listed_there.digest == entry.digest
            and place.at(MANIFEST) in remote.files
            and all(
                (file := remote.files.get(place.at(name))) is not None
                and _same(file, entry.folder / name, item)
                for name, item in entry.files.items()
            )
        )

    def _files(self, entry: Entry, place: Listed) -> dict[str, Path]:
        """Name → local file of everything that is pushed of an entry."""
        folder = self.scratch / f"{'root' if place.path == ROOT else 'nested'}-{entry.digest}"
        if not folder.is_dir():
            partial = self.scratch / "partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            if reader(entry.folder, entry.manifest) == "adapters":
                write_stock_copies(entry.folder, partial)
            (partial / CARD).write_text(
                entry_card(entry, self.repo, place, self.license), encoding="utf-8"
            )
            partial.rename(folder)
        files = {name: entry.folder / name for name in (MANIFEST, *entry.files)}
        return files | {path.name: path for path in folder.iterdir()}

    def _stale(self, place: Listed, files: dict[str, Path], remote: Remote) -> list[str]:
        """Files of a replaced entry that the new one has not; of a root, only its own kind."""
        if place.ref not in remote.entries:
            return []
        nested = tuple(f"{item.path}/" for item in remote.entries.values() if item.path != ROOT)
        if place.path == ROOT:
            ours = {
                path
                for path in remote.files
                if path.endswith((".json", ".safetensors", ".bin"))
                and path != INDEX
                and not path.startswith(nested)
            }
        else:
            ours = {path for path in remote.files if path.startswith(f"{place.path}/")}
        return sorted(ours - {place.at(name) for name in files})

    def _of_the_whole(self, remote: Remote, places: Sequence[Listed]) -> dict[str, Path]:
        """The index, and the card of the repository unless an entry at the root brings one."""
        every = {**remote.entries, **{place.ref: place for place in places}}
        if missing := [ref for ref, item in every.items() if not item.digest]:
            raise RequestError(
                f"Cannot {self.doing}: {remote.where} holds {missing[0]} and others without an "
                f"index ({INDEX}). Push into another repository."
            )
        write_json(self.scratch / INDEX, index_json(every.values()))
        files = {INDEX: self.scratch / INDEX}
        if all(item.path != ROOT for item in every.values()):
            card = self.scratch / CARD
            card.write_text(zoo_card(every.values(), self.repo, self.license), encoding="utf-8")
            files[CARD] = card
        return files

    def _commit(self, remote: Remote, plan: _Plan) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        pushed = [item for item in plan.entries if item["status"] == "pushed"]
        title = f"Add {pushed[0]['ref']}" if len(pushed) == 1 else f"Add {len(pushed)} entries"
        lines = [f"{item['ref']} {item['digest']}" for item in pushed]
        additions = [CommitOperationAdd(path, str(local)) for path, local in plan.add.items()]
        operations: list[Any] = [*additions, *map(CommitOperationDelete, plan.delete)]
        once = {item.upload_info.sha256: item for item in additions}
        with speaking(self.doing, self.repo):
            if len(once) < len(additions):  # the client would send equal files side by side
                api().preupload_lfs_files(
                    self.repo.id,
                    once.values(),
                    revision=self.repo.revision,
                    free_memory=False,
                )
            info = api().create_commit(
                self.repo.id,
                operations,
                commit_message=title,
                commit_description="\n".join(lines[:1000]),
                revision=self.repo.revision,
                parent_commit=remote.revision,
            )
        return str(info.oid)

    def _difference(self, remote: Remote, plan: _Plan) -> list[str]:
        wrong = [path for path in plan.delete if path in remote.files]
        for path, local in plan.add.items():
            file = remote.files.get(path)
            if file is None or not file.is_file(local):
                wrong.append(path)
        return wrong


def _same(file: RemoteFile, path: Path, item: dict[str, Any]) -> bool:
    """Whether the Hub's file is the one in an entry's table; hashes only where it has to."""
    if file.size != item["bytes"]:
        return False
    if file.sha256:
        return file.sha256 == item["sha256"]
    try:
        return file.is_file(path)
    except OSError as error:
        raise ZooError(f"{path} cannot be read: {error.strerror or error}.") from error
