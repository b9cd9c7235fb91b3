"""How an entry gets onto the disk: all of it, once, or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RunError, ZooError
from mtl.files import TEMPORARY, canonical_json, pretty_json
from mtl.zoo.card import card, license_of
from mtl.zoo.check import file_table, with_headers
from mtl.zoo.manifest import Manifest, read_manifest, record
from mtl.zoo.names import CARD, MANIFEST
from mtl.zoo.place import zoo_option
from mtl.zoo.staging import cannot, sync_parents, sync_tree

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry

_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR}


def store(folder: Path, target: Path, root: Path, ref: str, manifest: Manifest) -> bool:
    """Write manifest and card into ``folder``, sync it, rename it to ``target``.

    The rename is the only step that readers can see, and the system lets only one of several
    writers do it.

    Returns:
        True when the same digest was at ``target`` already (``folder`` is then left alone).

    Raises:
        ZooError: another digest is there; the manifest or a file cannot be stored.
        RunError: the system refuses.
    """
    if folder.parent != target.parent or not folder.name.startswith(TEMPORARY):
        raise ZooError(f"Cannot store {ref}: {folder} was not staged for it (Zoo.stage).")
    manifest = _plain(manifest, ref)
    try:
        value = record(manifest, file_table(folder, ref))
        _write(folder, value)
        sync_tree(folder)
        while not _move(folder, target):
            if _is_there(target, ref, value["digest"]):
                return True
    except OSError as error:
        raise cannot(f"store {ref} in the zoo {root}", error) from error
    try:
        sync_parents(target.parent, root)
    except OSError as error:
        raise RunError(
            f"{ref} is stored in the zoo {root}, but the system could not confirm that it is on "
            f"the disk: {error.strerror or error}. Check it with 'python -m mtl.zoo "
            f"fsck{zoo_option(root)}'."
        ) from error
    return False


def rewrite(staged: Path, target: Path, entry: Entry, verified: dict[str, Any] | None) -> None:
    """Replace manifest and card of a stored entry by ones with this ``verified`` record.

    They are of the current schema version, whatever the old ones were.
    """
    value = {**entry.manifest.to_dict(), "verified": verified}
    manifest = _plain(Manifest.from_dict(value, entry.ref), entry.ref)
    try:
        value = record(manifest, with_headers(target, entry.files))
        _write(staged, value, license_of(target / CARD))
        sync_tree(staged)
        for name in (MANIFEST, CARD):
            os.replace(staged / name, target / name)
        sync_parents(target, target)
    except FileNotFoundError as error:
        raise ZooError(f"The entry {entry.ref} was removed while it was verified.") from error
    except OSError as error:
        raise cannot(f"record the verification of {entry.ref}", error) from error


def _plain(manifest: Manifest, ref: str) -> Manifest:
    """The manifest as it will be read back: tuples are lists, keys are text; then checked."""
    try:
        value = json.loads(canonical_json(manifest.to_dict()))
    except (TypeError, ValueError) as error:
        raise ZooError(
            f"Cannot store {ref}: its manifest holds something that JSON cannot say ({error}). "
            "Undefined metrics are None, settings are text, numbers, lists and mappings."
        ) from error
    return Manifest.from_dict(value, f"Cannot store {ref}: manifest")


def _write(folder: Path, value: dict[str, Any], license: str | None = None) -> None:
    manifest = Manifest.from_dict({k: v for k, v in value.items() if k not in {"digest", "files"}})
    # Nobody reads a staged folder, so plain writes do; sync_tree flushes them.
    (folder / MANIFEST).write_text(pretty_json(value), encoding="utf-8")
    (folder / CARD).write_text(card(manifest, license), encoding="utf-8")


def _move(folder: Path, target: Path) -> bool:
    """Rename ``folder`` to ``target``; False if something is there."""
    try:
        os.rename(folder, target)
        return True
    except OSError as error:
        # An entry is never empty, so a rename onto it fails; every system has a code for that.
        if error.errno not in _TAKEN:
            raise
        return False


def _is_there(target: Path, ref: str, digest: str) -> bool:
    """Whether the entry at ``target`` has this digest; False if it was removed meanwhile.

    Raises:
        ZooError: something else is there.
    """
    option = zoo_option(target.parents[ref.count("/")])
    try:
        found = read_manifest(target / MANIFEST, ref).digest
    except (FileNotFoundError, NotADirectoryError, ZooError) as error:
        if not os.path.lexists(target):
            return False
        if (target / MANIFEST).is_file() and isinstance(error, FileNotFoundError):
            return False  # removed, and stored again by somebody else, while we looked
        raise ZooError(
            f"Cannot store {ref}: something that is no readable entry is at {target} ({error}). "
            f"Remove it (python -m mtl.zoo rm {ref}{option}), then run the same command again."
        ) from error
    if found != digest:
        raise ZooError(
            f"Cannot store {ref}: another result with the same settings is there. Stored: digest "
            f"{found}; new: digest {digest}. Entries are never overwritten: keep the stored one, "
            f"or remove it (python -m mtl.zoo rm {ref}{option}) and run the same command again."
        )
    return True
