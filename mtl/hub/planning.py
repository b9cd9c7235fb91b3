"""What a push has to send: what the repository should hold, less what it holds."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, ZooError
from mtl.files import pretty_json, write_json
from mtl.hub.cards import entry_card, zoo_card
from mtl.hub.client import RepoName
from mtl.hub.index import INDEX, ROOT, Listed, index_json, listed
from mtl.hub.remote import Remote, RemoteFile
from mtl.hub.stock import reader, write_stock_copies
from mtl.untrusted import load_json
from mtl.zoo.machine import portable_text
from mtl.zoo.names import CARD, MANIFEST

if TYPE_CHECKING:
    from mtl.zoo import Entry


@dataclass(frozen=True)
class Transfer:
    """Files to add (path in the repository → local file), paths to delete, what was found there."""

    add: dict[str, Path]
    delete: list[str]
    entries: list[dict[str, str]]


@dataclass(frozen=True)
class Planner:
    """Plans a push, as often as it is tried.

    Attributes:
        entries: each composition after its sources.
        repo: where to.
        license: for the cards, or None.
        replace: whether other results and others' files may give way.
        scratch: a folder for what is made for the push; kept between attempts.
        doing: how messages name the push.
    """

    entries: Sequence[Entry]
    repo: RepoName
    license: str | None
    replace: bool
    scratch: Path
    doing: str

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

    def plan(self, remote: Remote) -> Transfer:
        """What ``remote`` lacks. Raises RequestError where something else is in the way."""
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
        self._check_others(remote, places, add)
        return Transfer(add, delete, found)

    def _check_others(self, remote: Remote, places: Sequence[Listed], add: dict[str, Path]) -> None:
        """Refuse to write over files that no push of ours has put there."""
        ours = {CARD, INDEX} if INDEX in remote.files else set()
        for place in places:
            if place.ref in remote.entries:
                ours |= {path for path in add if place.path == ROOT or path.startswith(place.path)}
        taken = sorted(path for path in add if path in remote.files and path not in ours)
        if taken and not self.replace:
            raise RequestError(
                f"Cannot {self.doing}: {remote.where} holds files that are not from mtl and would "
                f"be lost: {', '.join(taken[:5])}. Choose another --repo, or pass --replace (the "
                "old ones stay in the history)."
            )

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
            portable = portable_text(entry.manifest.command)
            if portable != entry.manifest.command:  # of before; no digest covers it
                value = load_json(entry.folder / MANIFEST, f"{entry.ref}: {MANIFEST}")
                text = pretty_json({**value, "command": portable})
                (partial / MANIFEST).write_text(text, encoding="utf-8")
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
