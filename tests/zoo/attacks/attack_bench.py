"""What attacks are made with: entries whose manifest agrees with whatever their files became."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtl.files import sha256_file
from mtl.zoo.check import file_table
from mtl.zoo.manifest import Manifest, record

Attack = Callable[[Path], None]
ATTACKS: dict[str, tuple[str, Attack]] = {}
"""Name → the kind of problem that it has to be found as, and what it does to a good entry."""


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def write(folder: Path, value: dict[str, Any]) -> None:
    (folder / "manifest.json").write_text(json.dumps(value))


def reseal(folder: Path, **changes: Any) -> None:
    """Hashes, sizes, headers and digest of the files as they now are, under a changed manifest."""
    value = {**read(folder), **changes}
    described = Manifest.from_dict({k: v for k, v in value.items() if k not in {"digest", "files"}})
    write(folder, record(described, file_table(folder, "attack")))


def raw_safetensors(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> None:
    """A safetensors file with any header, whatever a library would refuse to write."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + text + data)


def tampered(folder: Path, name: str = "adapter.safetensors") -> None:
    """Let the file table agree with a file whose header no tool of ours would take."""
    value = read(folder)
    path = folder / name
    value["files"][name] |= {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    described = Manifest.from_dict({k: v for k, v in value.items() if k not in {"digest", "files"}})
    write(folder, record(described, value["files"]))


def attack(kind: str) -> Callable[[Attack], Attack]:
    """Register an attack that has to be found as a problem of this kind."""

    def register(function: Attack) -> Attack:
        ATTACKS[function.__name__] = (kind, function)
        return function

    return register
