"""What one machine keeps between commands, in the user's cache: ``$MTL_CACHE/machine``.

One JSON file per thing. It never travels, and everything goes on without it.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mtl.errors import MtlError
from mtl.files import cache_folder, sha256_bytes, sha256_json, write_bytes
from mtl.untrusted import load_json

_LOG = logging.getLogger("mtl")


def remember(kind: str, key: str, value: Mapping[str, Any]) -> None:
    """Keep ``value`` for :func:`recall`, on this machine only.

    A cache that cannot be written is no reason for a finished run to fail: what is not kept has to
    be said on the command line later, and the message then says so.
    """
    path = _place(kind, key)
    if path is None:
        return
    try:
        write_bytes(path, json.dumps({"key": key, **value}).encode())
    except MtlError as error:
        _LOG.info("Not kept for later commands: %s", error)


def recall(kind: str, key: str) -> dict[str, Any] | None:
    """What :func:`remember` kept; None where there is nothing, or nothing that can be read."""
    path = _place(kind, key)
    if path is None:
        return None
    with contextlib.suppress(OSError, MtlError):
        value = load_json(path, f"{path}")
        if isinstance(value, dict) and value.get("key") == key:
            return value
    return None


def _place(kind: str, key: str) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    return folder / "machine" / kind / f"{sha256_bytes(key.encode())[:32]}.json"


def keep_computed(kind: str, key: str, content: Any) -> None:
    """Keep what was computed for :func:`computed`, where the cache can be written."""
    with contextlib.suppress(MtlError):
        remember(kind, key, {"content": content, "sha256": sha256_json(content)})


def computed(kind: str, key: str) -> Any:
    """What :func:`keep_computed` kept; None where there is nothing, or it is damaged."""
    with contextlib.suppress(MtlError, LookupError, TypeError):
        record = recall(kind, key) or {}
        if record["sha256"] == sha256_json(record["content"]):
            return record["content"]
    return None


def forget(kind: str, key: str) -> None:
    """Remove what :func:`remember` kept."""
    path = _place(kind, key)
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink()


def made_by(*packages: str) -> dict[str, str]:
    """The code that computes something: this package's files, and versions of ``packages``."""
    found = {"mtl": code_mark()}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@lru_cache(maxsize=1)
def code_mark() -> str:
    """What changes when a file of this package does: what it computed before may be another."""
    package = Path(__file__).parent
    found = sorted(
        (str(path.relative_to(package)), stat.st_mtime_ns, stat.st_size)
        for path in package.rglob("*.py")
        for stat in (path.stat(),)
    )
    return sha256_json(found)
