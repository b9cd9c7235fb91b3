"""``pull``: entries of a repository into a zoo, and ``restore``: exactly what a lock file names.

A file goes from the client's cache into a staging folder of the zoo, is compared with the file
table of its manifest there, and the entry appears by one rename. Sources come before compositions,
so a zoo is whole wherever a pull is cut.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.errors import RequestError, RunError
from mtl.files import write_text
from mtl.hub.boundary import file_bytes, json_bytes, json_file, manifest_file
from mtl.hub.client import RepoName, speaking
from mtl.hub.index import ROOT, Listed, select
from mtl.hub.peft_config import refuse_peft
from mtl.hub.remote import Pulled, Remote, adapter_folders, fetch, fetch_all, read_remote, remember
from mtl.hub.stock import CONFIG_FILE
from mtl.words import counted
from mtl.zoo import base_slug
from mtl.zoo.arrival import check_sizes, free_place, take_in
from mtl.zoo.card import card, license_of
from mtl.zoo.names import CARD, MANIFEST
from mtl.zoo.place import option_of, zoo_option

if TYPE_CHECKING:
    from mtl.hub.keeping import Claims, Judge
    from mtl.hub.lockfile import Locked
    from mtl.zoo import Entry, Manifest, Zoo
    from mtl.zoo.manifest import Recorded

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` after each entry."""


@dataclass(frozen=True)
class _Wanted:
    place: Listed
    recorded: Recorded


def pull(
    zoo: Zoo,
    repo: RepoName,
    keys: Sequence[str] = (),
    *,
    claims: Claims | None = None,
    judge: Judge | None = None,
    sources: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pulled:
    """Put entries of ``repo`` into the zoo, with the sources that compositions need.

    A repository without entries of ours may hold adapters of stock ``adapters``
    (:mod:`mtl.hub.foreign`).

    Args:
        keys: references, their last parts, or starts of digests; none for all.
        claims: what is known of adapters that are not ours.
        judge: has such a one answer the task that ``claims`` name.
        sources: False leaves out sources that are not asked for.
        dry_run: say what would be stored.

    Raises:
        RequestError: no such repository, revision or entry, no access, offline without a copy in
            the cache; no entries of ours (see :mod:`mtl.hub.foreign`).
        ZooError: an entry is damaged, not what it says, or in the way of another one.
        RunError: network, Hub, disk.
    """
    remote = read_remote(repo)
    if not remote.entries:
        folders = adapter_folders(remote, keys)
        if claims is None:
            path = fetch(remote, f"{folders[0]}/{CONFIG_FILE}".lstrip("/"), json_bytes())
            refuse_peft(json_file(path, "its config"), remote)
            raise RequestError(
                f"{remote.where} holds no entry of mtl, but an adapter of stock adapters. Name the "
                "model that it was trained on: "
                f"python -m mtl.zoo pull {repo}{zoo_option(zoo.root)} --model MODEL (and, if "
                "known, --task TASK)."
            )
        from mtl.hub.foreign import pull_foreign  # needs torch and adapters

        return pull_foreign(zoo, remote, keys, claims, judge, dry_run=dry_run)
    chosen = select(remote.entries, keys, remote.where) if keys else list(remote.entries.values())
    return pull_listed(zoo, remote, chosen, sources=sources, dry_run=dry_run, progress=progress)


def pull_listed(
    zoo: Zoo,
    remote: Remote,
    chosen: Sequence[Listed],
    *,
    sources: bool,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Pulled:
    """:func:`pull` of these entries of a repository that was read."""
    local = {entry.digest: entry for entry in zoo.entries()}
    order = _order(remote, chosen, local, sources)
    missing, new = [], {}
    for wanted in order:
        there = local.get(wanted.recorded.digest)
        if there is not None:
            zoo.load_check(there)
        else:
            ref = wanted.place.ref
            new[ref] = free_place(zoo, ref, wanted.recorded, f"pull {ref} from {remote.where}")
            missing.append(wanted)
    size = sum(check_sizes(wanted.recorded, wanted.place.ref) for wanted in missing)
    if not dry_run:
        for done, wanted in enumerate(missing, start=1):
            _store(zoo, remote, wanted, new[wanted.place.ref], sources)
            if progress is not None:
                progress(done, len(missing))
        remember(remote)
    entries = [
        {
            "ref": new.get(w.place.ref) or local[w.recorded.digest].ref,
            "digest": w.recorded.digest,
            "status": "pulled" if w.place.ref in new else "there",
        }
        for w in order
    ]
    return Pulled(remote.repo.id, remote.revision, entries, size)


def _read(remote: Remote, place: Listed) -> _Wanted:
    """An entry of the repository by its manifest, which is checked against the index."""
    path = fetch(remote, place.at(MANIFEST), json_bytes())
    where = f"{remote.where}/{place.at(MANIFEST)}"
    recorded = manifest_file(path, where)
    if place.digest and place.digest != recorded.digest:
        raise RunError(
            f"{where}: the index of the repository lists the digest {place.digest[:16]}…, the "
            f"manifest has {recorded.digest[:16]}…. Nothing was stored; its owner has to push "
            "again."
        )
    ref = _reference(recorded.manifest) if place.ref == ROOT else place.ref
    return _Wanted(replace(place, ref=ref, digest=recorded.digest), recorded)


def _reference(manifest: Manifest) -> str:
    """Where an entry stands that lies at the root of a repository without an index."""
    base = base_slug(manifest.base["id"], manifest.base["fingerprint"])
    parts = [base, manifest.suite, manifest.task["name"], manifest.method]
    return "/".join([*parts, f"seed{manifest.seed}-{manifest.runhash[:8]}"])


def _order(
    remote: Remote, chosen: Sequence[Listed], local: Mapping[str, Entry], sources: bool
) -> list[_Wanted]:
    """The chosen entries and what they need, sources first.

    Raises:
        RequestError: a source is neither in the repository nor in the zoo.
    """
    read: dict[str, _Wanted] = {}
    if len(chosen) > 1:  # into the cache, several at a time
        fetch_all(remote, [item.at(MANIFEST) for item in chosen], json_bytes())

    def known(place: Listed) -> _Wanted:
        if place.path not in read:
            read[place.path] = _read(remote, place)
        return read[place.path]

    digests = {item.digest: item for item in remote.entries.values() if item.digest}
    asked = {item.path for item in chosen}
    order: dict[str, _Wanted] = {}

    def add(place: Listed, above: tuple[str, ...]) -> None:
        wanted = known(place)
        for parent in wanted.recorded.manifest.parents:
            found = digests.get(parent["digest"]) or _search(remote, known, parent["digest"])
            if found is not None and found.path in above:
                continue  # a circle exists only where somebody made it up
            if found is not None and (sources or found.path in asked):
                add(found, (*above, place.path))
            elif sources and parent["digest"] not in local:
                raise RequestError(
                    f"{wanted.place.ref} needs {parent['ref']} with digest "
                    f"{parent['digest'][:12]}…, which is neither in {remote.where} nor in the zoo. "
                    "Pull it from where it is first, or pass --without-sources: the composition "
                    "can then not be loaded before it is there."
                )
        order.setdefault(place.path, wanted)

    for item in chosen:
        add(item, ())
    return list(order.values())


def _search(remote: Remote, known: Callable[[Listed], _Wanted], digest: str) -> Listed | None:
    """An entry of a repository without an index by its digest: the manifests are read."""
    for item in remote.entries.values():
        if not item.digest and known(item).recorded.digest == digest:
            return item
    return None


def _store(zoo: Zoo, remote: Remote, wanted: _Wanted, place: str, sources: bool) -> None:
    ref, recorded = wanted.place.ref, wanted.recorded
    paths = {name: wanted.place.at(name) for name in (MANIFEST, *recorded.files)}
    for name, item in recorded.files.items():
        listed = remote.files.get(paths[name])
        if listed is not None and listed.size != item["bytes"]:
            raise RunError(
                f"Cannot pull {ref} from {remote.where}: {name} has {listed.size} bytes there, "
                f"its manifest says {item['bytes']}. Nothing was stored; its owner has to push "
                "again."
            )

    def fill(folder: Path) -> None:
        found = fetch_all(remote, paths.values(), file_bytes())
        with speaking(f"pull {ref} from {remote.where}", remote.repo):
            for name, path in paths.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found[path], folder / name)

    entry = take_in(zoo, place, recorded, fill, orphan=not sources)
    _keep_license(entry, remote, wanted)


def _keep_license(entry: Entry, remote: Remote, wanted: _Wanted) -> None:
    """The licence that the publisher gave goes into the local card, too."""
    path = wanted.place.at(CARD)
    if path not in remote.files or remote.files[path].size > json_bytes():
        return
    license = license_of(fetch(remote, path, json_bytes()))
    if license is not None:
        write_text(entry.folder / CARD, card(entry.manifest, license))


def restore(
    zoo: Zoo, locked: Sequence[Locked], *, dry_run: bool = False, progress: Progress | None = None
) -> list[Pulled]:
    """Make the zoo hold exactly the locked entries at their places; others stay as they are.

    Everything is compared first: where something differs, nothing is pulled.

    Raises:
        RunError: lists every difference: another result at a place, an entry that no repository
            was recorded for, a repository that holds another digest.
        ZooError: an entry is damaged.
    """
    differing: list[str] = []
    missing: list[Locked] = []
    there = {entry.ref: entry for entry in zoo.entries()}
    for item in locked:
        entry = there.get(item.ref)
        if entry is None:
            missing.append(item)
        elif entry.digest != item.digest:
            differing.append(
                f"{item.ref}: the zoo has digest {entry.digest[:12]}…, locked is "
                f"{item.digest[:12]}… (python -m mtl.zoo rm {item.ref}"
                f"{option_of(entry)} makes room)"
            )
        else:
            zoo.load_check(entry)
    wanted: dict[RepoName, list[Locked]] = {}
    for item in missing:
        if item.repo is None or item.revision is None:
            differing.append(
                f"{item.ref}: it is not in the zoo, and the lock names no repository for it"
            )
        else:
            wanted.setdefault(RepoName(item.repo, item.revision), []).append(item)
    remotes: list[tuple[Remote, list[Listed]]] = []
    for repo, items in wanted.items():
        remote = read_remote(repo)
        chosen = []
        for item in items:
            found = remote.entries.get(item.ref)
            if found is None or found.digest not in {"", item.digest}:
                what = f"digest {found.digest[:12]}…" if found else "nothing"
                differing.append(
                    f"{item.ref}: {remote.where} has {what} there, locked is {item.digest[:12]}…"
                )
            else:
                chosen.append(replace(found, digest=item.digest))
        remotes.append((remote, chosen))
    if differing:
        lines = "\n  ".join(differing)
        what = counted(len(differing), "entry differs", "entries differ")
        raise RunError(f"Nothing was pulled; {what}:\n  {lines}")
    return [
        pull_listed(zoo, remote, chosen, sources=False, dry_run=dry_run, progress=progress)
        for remote, chosen in remotes
    ]
