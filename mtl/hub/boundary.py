"""What is checked before something from a stranger is used: one place for all of it.

Everything here uses the checks of :mod:`mtl.zoo`; what the Hub lists is not believed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtl.errors import ZooError
from mtl.zoo import Zoo, check, digest
from mtl.zoo.manifest import MAX_MANIFEST_BYTES, Recorded, read_manifest, read_small_json
from mtl.zoo.names import MANIFEST, safe_path

JSON_BYTES = MAX_MANIFEST_BYTES
"""A larger index, manifest or config is not downloaded."""
FILE_BYTES = 16 << 30
ENTRY_BYTES = 64 << 30
FILES = 2_000
"""Largest file, largest entry, most files of an entry that a pull takes."""


def json_file(path: Path, where: str) -> Any:
    """The value of a JSON file, read within bounds. Raises ZooError."""
    try:
        return read_small_json(path, where)
    except FileNotFoundError as error:
        raise ZooError(f"{where}: {path.name} is missing.") from error


def manifest_file(path: Path, where: str) -> Recorded:
    """A manifest whose digest is the one that its content has. Raises ZooError."""
    try:
        return read_manifest(path, where)
    except FileNotFoundError as error:
        raise ZooError(f"{where}: {MANIFEST} is missing.") from error


def check_sizes(recorded: Recorded, where: str) -> int:
    """Bytes of all files of an entry, if no limit forbids them.

    Raises:
        ZooError: too many, or too large.
    """
    sizes = [item["bytes"] for item in recorded.files.values()]
    if len(sizes) > FILES or sum(sizes) > ENTRY_BYTES or max(sizes, default=0) > FILE_BYTES:
        raise ZooError(
            f"{where} declares {len(sizes)} files of {sum(sizes)} bytes; at most {FILES} files, "
            f"{FILE_BYTES} bytes each and {ENTRY_BYTES} together are pulled. Nothing was stored."
        )
    return sum(sizes)


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
    """Refuse a staged entry whose files are not exactly those of its manifest.

    Raises:
        ZooError: the first problem; what was expected and found.
    """
    for problems in (check.check_files, check.check_strays, check.check_tensors):
        for problem in problems(folder, recorded.files):
            raise ZooError(
                f"Cannot store {ref}: {problem.path} {problem.message} Nothing was kept."
            )
    found = check.file_table(folder, ref)
    again = digest(recorded.manifest, {name: item["sha256"] for name, item in found.items()})
    if again != recorded.digest:
        raise ZooError(
            f"Cannot store {ref}: its files give the digest {again[:16]}…, its manifest says "
            f"{recorded.digest[:16]}…. Nothing was kept."
        )
