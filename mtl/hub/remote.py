"""A repository at one commit: its files as the Hub lists them, its entries, and single files.

Names, sizes and contents come from strangers. A name is used only after ``safe_path``, a file only
after its size and hash were compared with the listing (and, by :mod:`mtl.hub.pulling`, with the
manifest).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl.errors import MtlError, RequestError, RunError, ZooError
from mtl.files import sha256_file, write_text
from mtl.hub.boundary import json_bytes
from mtl.hub.client import (
    RepoName,
    UnreachableError,
    api,
    making_sense,
    offline,
    patiently,
    speaking,
)
from mtl.hub.index import INDEX, ROOT, Listed, read_index
from mtl.hub.stock import CONFIG_FILE
from mtl.words import printable
from mtl.zoo.names import MANIFEST, safe_path

WORKERS = 8
"""Files that are downloaded at the same time."""
MAX_FILES = 500_000
"""Files of a repository beyond which it is not read."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it: its size, and the sha256 (large files) or git blob id."""

    size: int
    sha256: str | None = None
    blob: str | None = None

    def is_file(self, path: Path) -> bool:
        """Whether the local file at ``path`` is this one."""
        if path.stat().st_size != self.size:
            return False
        if self.sha256:
            return sha256_file(path) == self.sha256
        return self.blob is None or blob_id(path) == self.blob


@dataclass(frozen=True)
class Remote:
    """A repository at one commit.

    Attributes:
        repo: as the user named it.
        revision: the commit, 40 hex digits.
        private: whether others cannot see it; None where unknown (offline).
        files: path → file, of all paths that can be used on a disk.
        entries: reference → entry of ours.
        folder: the snapshot in the local cache, when offline.
    """

    repo: RepoName
    revision: str
    private: bool | None
    files: Mapping[str, RemoteFile]
    entries: Mapping[str, Listed]
    folder: Path | None = None

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"{self.repo.id}@{self.revision[:12]}"


@dataclass(frozen=True)
class Pulled:
    """What a pull did.

    Attributes:
        repo: the repository.
        revision: its commit.
        entries: per entry ``{"ref", "digest", "status"}``; status is ``pulled`` or ``there``.
        bytes: of the files that were (or, in a dry run, would be) stored.
    """

    repo: str
    revision: str
    entries: list[dict[str, str]]
    bytes: int


def blob_id(path: Path) -> str:
    """The id that git gives the content of a file: sha1 over a header with its size, and it.

    In pieces: the client's ``git_hash`` takes the whole content, and how large a file without a
    sha256 is, only a stranger says.
    """
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def read_remote(repo: RepoName) -> Remote:
    """List ``repo``; from the local cache where ``HF_HUB_OFFLINE`` is set.

    Raises:
        RequestError, RunError, ZooError: see :func:`mtl.hub.client.speaking`; a broken index.
    """
    doing = f"read {repo}"
    if offline():
        return _cached(repo, doing)

    def read() -> tuple[str, bool, dict[str, RemoteFile]]:
        with making_sense(doing), speaking(doing, repo):
            info = api().repo_info(repo.id, revision=repo.revision)
            if not re.fullmatch(r"[0-9a-f]{40}", str(info.sha)):
                raise RunError(
                    f"Cannot {doing}: the Hub names no commit, but {printable(info.sha)!r:.60}."
                )
            return str(info.sha), bool(info.private), _tree(repo, str(info.sha))

    revision, private, files = patiently(read)
    bare = Remote(repo, revision, private, files, {})
    return Remote(repo, revision, private, files, _entries(bare))


def _tree(repo: RepoName, revision: str) -> dict[str, RemoteFile]:
    files: dict[str, RemoteFile] = {}
    listing = api().list_repo_tree(repo.id, revision=revision, recursive=True)
    for number, item in enumerate(listing):
        if number >= MAX_FILES:  # folders count, and what is listed again: no listing is endless
            raise RunError(f"{repo} holds more than {MAX_FILES} files and folders; it is not read.")
        if not hasattr(item, "size"):
            continue
        size = item.lfs.size if item.lfs else item.size
        if not isinstance(item.path, str) or not isinstance(size, int) or size < 0:
            raise RunError(f"Cannot read {repo}: the Hub lists a file without a name or a size.")
        if _usable(item.path):
            sha = item.lfs.sha256 if item.lfs else None
            files[item.path] = RemoteFile(size, sha, None if item.lfs else item.blob_id)
    return files


def _usable(path: str) -> bool:
    try:
        safe_path(path, "file name")
    except MtlError:
        return False  # .gitattributes, and what nobody could store
    return True


def _cached(repo: RepoName, doing: str) -> Remote:
    with speaking(doing, repo):
        found = api().snapshot_download(repo.id, revision=repo.revision, local_files_only=True)
    folder = Path(found)
    files = {}
    for current, _, names in os.walk(folder):
        for name in names:
            path = (Path(current) / name).relative_to(folder).as_posix()
            if _usable(path):
                files[path] = RemoteFile((folder / path).stat().st_size)
    bare = Remote(repo, folder.name, None, files, {}, folder)
    return Remote(repo, folder.name, None, files, _entries(bare), folder)


def _entries(remote: Remote) -> dict[str, Listed]:
    """What the index lists and is there; else every folder with a manifest."""
    if INDEX in remote.files:
        path = fetch(remote, INDEX, json_bytes())
        listed = read_index(path, remote.where)
        return {ref: item for ref, item in listed.items() if item.at(MANIFEST) in remote.files}
    found = {}
    for file in remote.files:
        folder, _, name = file.rpartition("/")
        if name == MANIFEST:
            # Its manifest says its reference if it lies at the root.
            found[folder or ROOT] = Listed(folder or ROOT, folder or ROOT, "", {})
    return found


def adapter_folders(remote: Remote, keys: Sequence[str]) -> list[str]:
    """Folders of the repository with an adapter of stock ``adapters``; "" is its root.

    Raises:
        RequestError: there is none, or none of a name in ``keys``.
    """
    end = CONFIG_FILE
    found = [
        path.removesuffix(end).rstrip("/") for path in remote.files if path.split("/")[-1] == end
    ]
    if not found:
        raise RequestError(
            f"{remote.where} holds neither entries of mtl nor an adapter ({end}): there is nothing "
            "that a zoo could hold."
        )
    for key in keys:
        if key.strip("/") not in found:
            raise RequestError(
                f"{remote.where} holds no adapter {printable(key)!r}. It holds: "
                f"{', '.join(name or '(its root)' for name in found[:20])}."
            )
    return [key.strip("/") for key in keys] or found


def pull_folders(
    remote: Remote,
    folders: Sequence[str],
    pull: Callable[[str], Mapping[str, Any]],
) -> Pulled:
    """``pull`` every folder, and say of each which entry it became.

    Args:
        pull: folder → ``ref``, ``digest``, ``status``, ``bytes`` and what else is to be said.

    Raises:
        MtlError: what ``pull`` raised, with where.
    """
    entries, size = [], 0
    for folder in folders:
        try:
            made = dict(pull(folder))
        except MtlError as error:
            doing = f"{remote.where}/{folder}".rstrip("/")
            text = str(error).rstrip(".")
            raise type(error)(f"Cannot pull {doing} into the zoo: {text}.") from error
        size += int(made.pop("bytes"))
        entries.append(made)
    return Pulled(remote.repo.id, remote.revision, entries, size)


def fetch(remote: Remote, path: str, limit: int) -> Path:
    """A file of the repository in the local cache, equal in size and hash to its listing.

    The cache keeps a wrong body under the right name, so a file that differs is loaded again.

    Raises:
        ZooError: the repository has no such file, it is larger than ``limit``, or what arrives is
            not what is listed.
        RequestError, RunError: see :func:`mtl.hub.client.speaking`.
    """
    expected = remote.files.get(path)
    if expected is None:
        raise ZooError(f"{remote.where} holds no {printable(path)}: it is incomplete.")
    if expected.size > limit:
        raise ZooError(
            f"{remote.where}: {path} has {expected.size} bytes; at most {limit} are allowed here. "
            "Nothing was stored."
        )
    if remote.folder is not None:
        return (remote.folder / path).resolve()
    for again in (False, True):
        found = patiently(lambda force=again: _download(remote, path, force))  # type: ignore[misc]
        if expected.is_file(found):
            return found.resolve()  # the cache holds links
    raise UnreachableError(
        f"Cannot pull {path} from {remote.where}: what arrives is not what the Hub lists (size or "
        "hash). Nothing was stored; run the same command again, and if it stays so, tell the "
        "owner of the repository."
    )


def remember(remote: Remote) -> None:
    """Note in the client's cache which commit the named revision is, so that it is found offline.

    Files are downloaded by commit; the client notes a branch only where it is asked for one.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=remote.repo.id, repo_type="model")
    name = remote.repo.revision or "main"
    if remote.folder is None and name != remote.revision:
        write_text(Path(constants.HF_HUB_CACHE) / folder / "refs" / name, remote.revision)


def _download(remote: Remote, path: str, force: bool) -> Path:
    doing = f"pull {path} from {remote.where}"
    with making_sense(doing), speaking(doing, remote.repo):
        found = api().hf_hub_download(
            remote.repo.id, path, revision=remote.revision, force_download=force
        )
    return Path(found)


def fetch_all(remote: Remote, paths: Iterable[str], limit: int) -> dict[str, Path]:
    """:func:`fetch` of several files, some at a time; the first failure ends it.

    Not the client's ``snapshot_download``: it asks for commit and names once more, believes that
    answer, and gives what its cache holds where there is none.
    """
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        waiting = {path: pool.submit(fetch, remote, path, limit) for path in paths}
        try:
            return {path: future.result() for path, future in waiting.items()}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
