"""What is checked before something from a stranger is used: one place for all of it.

The checks are those of the zoo (:mod:`mtl.zoo.intake`), within its limits (:mod:`mtl.limits`); what
the Hub lists is not believed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtl.errors import ZooError
from mtl.limits import current
from mtl.untrusted import load_json
from mtl.zoo import Zoo, admit, check_listing, digest
from mtl.zoo.check import file_table
from mtl.zoo.manifest import Recorded, read_manifest
from mtl.zoo.names import MANIFEST, safe_path


def json_bytes() -> int:
    """A larger index, manifest or config is not downloaded."""
    return current().json_bytes


def file_bytes() -> int:
    """A larger file is not downloaded."""
    return current().file_bytes


def json_file(path: Path, where: str) -> Any:
    """The value of a JSON file, read within the limits. Raises ZooError."""
    try:
        return load_json(path, where)
    except FileNotFoundError as error:
        raise ZooError(f"{where} is missing.") from error


def manifest_file(path: Path, where: str) -> Recorded:
    """A manifest whose digest is the one that its content has. Raises ZooError."""
    try:
        return read_manifest(path, where)
    except FileNotFoundError as error:
        raise ZooError(f"{where}: {MANIFEST} is missing.") from error


def check_sizes(recorded: Recorded, where: str) -> int:
    """Bytes of all files of an entry, if no limit forbids them.

    Raises:
        ZooError: too many, too large, or with names that cannot be stored.
    """
    sizes = {name: item["bytes"] for name, item in recorded.files.items()}
    for problem in check_listing(sizes):
        raise ZooError(f"{where}: {problem} Nothing was stored.")
    return sum(sizes.values())


def check_place(zoo: Zoo, ref: str) -> None:
    """Refuse a reference that lies inside an entry, or where something else stands.

    Raises:
        RequestError: no plain relative path.
        ZooError: the place cannot be that of an entry.
    """
    folder = zoo.path(safe_path(ref, "reference"))
    for above in folder.parents:
        if above == zoo.root:
            break
        if (above / MANIFEST).exists() or (above.exists() and not above.is_dir()):
            raise ZooError(f"Cannot store {ref}: {zoo.ref(above)} is an entry or a file.")
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise ZooError(
            f"Cannot store {ref}: {folder} is there and is no entry. Move it out of the zoo."
        )


def check_staged(folder: Path, recorded: Recorded, ref: str) -> None:
    """Refuse a staged entry, manifest included, that is not exactly what its manifest says.

    Raises:
        ZooError: the first problems; what was expected and found.
    """
    admit(folder, ref)
    found = {name: item["sha256"] for name, item in file_table(folder, ref).items()}
    again = digest(recorded.manifest, found)
    if again != recorded.digest:
        raise ZooError(
            f"{ref} was not taken into the zoo: its files give the digest {again[:16]}…, its "
            f"manifest says {recorded.digest[:16]}…."
        )
