"""What is checked before something of the Hub is read; what it lists is not believed.

How an entry gets in, whole and checked, is the same from everywhere: :mod:`mtl.zoo.arrival`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtl.errors import ZooError
from mtl.limits import current
from mtl.untrusted import load_json
from mtl.zoo.manifest import Recorded, read_manifest
from mtl.zoo.names import MANIFEST


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
