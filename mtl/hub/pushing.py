"""``push``: entries of a zoo to a repository of the Hub, in one commit.

What has to be sent is the difference between what the repository should hold and what it holds.
After the commit the difference is taken again, at the new commit: it must be empty. So whatever
broke before (a connection, an answer that got lost, another writer), doing it again is right, and
what has arrived is not sent twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, RunError
from mtl.hub.cards import check_license
from mtl.hub.client import (
    NotThereError,
    RepoName,
    api,
    need_network,
    need_token,
    patiently,
    speaking,
)
from mtl.hub.planning import Planner, Transfer
from mtl.hub.remote import Remote, read_remote
from mtl.words import counted
from mtl.zoo.place import option_of
from mtl.zoo.sharing import need_portable, with_sources

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


def push(
    zoo: Zoo,
    keys: Sequence[str],
    repo: RepoName,
    *,
    private: bool = False,
    license: str | None = None,
    replace: bool = False,
    with_paths: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Put entries, with the sources that compositions need, into ``repo``, in one commit.

    A single entry lies at the root of the repository unless another one is there; several nest by
    their references. ``repo.revision`` is the branch, made where it is missing.

    Args:
        keys: as for ``Zoo.get``; none for the whole zoo.
        license: identifier for the cards.
        replace: put an entry in the place of another result with the same reference.
        with_paths: push entries of an earlier version although their digests cover paths of the
            machine that made them.
        dry_run: say what would be sent; nothing is made or changed.

    Raises:
        RequestError: unknown or unverified entries, paths under a digest, no token, no right,
            offline, a repository of the other visibility, another result in an entry's place.
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
    if not with_paths:
        need_portable(entries, "push")
    doing = f"push {len(entries)} entries to {repo}" if len(entries) > 1 else (
        f"push {entries[0].ref} to {repo}"
    )  # fmt: skip
    need_network(doing)
    need_token(doing)
    with tempfile.TemporaryDirectory(prefix="mtl-push-") as scratch:
        planner = Planner(entries, repo, license, replace, Path(scratch), doing)
        attempt = _Attempt(planner, private)
        return attempt.look() if dry_run else patiently(attempt.run)


def _need_verified(entries: Sequence[Entry]) -> None:
    missing = [entry for entry in entries if entry.manifest.verified is None]
    if missing:
        lines = "\n  ".join(
            f"python -m mtl.zoo verify {entry.ref}{option_of(entry)}" for entry in missing
        )
        raise RequestError(
            f"{len(missing)} of {counted(len(entries), 'entry', 'entries')} "
            f"{'has' if len(missing) == 1 else 'have'} no record of a second evaluation from disk, "
            f"and only verified results are pushed. Get it with:\n  {lines}"
        )


@dataclass(frozen=True)
class _Attempt:
    """One push, which may be tried several times; prepared files are kept between attempts."""

    planner: Planner
    private: bool

    @property
    def repo(self) -> RepoName:
        return self.planner.repo

    @property
    def doing(self) -> str:
        return self.planner.doing

    def run(self) -> Pushed:
        remote = self._open()
        plan = self.planner.plan(remote)
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
        plan = self.planner.plan(remote)
        size = sum(path.stat().st_size for path in plan.add.values())
        return self._pushed(revision, plan, len(plan.add) + len(plan.delete), size)

    def _pushed(self, revision: str | None, plan: Transfer, files: int, size: int) -> Pushed:
        url = f"{api().endpoint}/{self.repo.id}"
        return Pushed(str(self.repo), revision, plan.entries, files, size, url)

    def _open(self) -> Remote:
        """The repository, and the branch, made where they are missing."""
        client, name, branch = api(), self.repo.id, self.repo.revision
        with speaking(self.doing, self.repo):
            if not client.repo_exists(name):
                client.create_repo(name, private=self.private, exist_ok=True)
            if branch and not client.revision_exists(name, branch):
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

    def _commit(self, remote: Remote, plan: Transfer) -> str:
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

    def _difference(self, remote: Remote, plan: Transfer) -> list[str]:
        wrong = [path for path in plan.delete if path in remote.files]
        for path, local in plan.add.items():
            file = remote.files.get(path)
            if file is None or not file.is_file(local):
                wrong.append(path)
        return wrong
