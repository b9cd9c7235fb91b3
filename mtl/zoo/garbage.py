"""What a zoo can do without: found first, removed only when asked to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.files import TEMPORARY
from mtl.zoo.fsck import temporaries
from mtl.zoo.staging import LOCK_SUFFIX, clear, is_dead
from mtl.zoo.summary import index_folder

if TYPE_CHECKING:
    from mtl.zoo.store import Zoo


@dataclass(frozen=True)
class Garbage:
    """Something that can go.

    Attributes:
        kind: ``leftover``, ``folder`` or ``index`` here; ``run`` and ``cache`` in
            :mod:`mtl.runs.tidy`.
        path: where, absolute.
        bytes: of all files in it.
        reason: why nothing needs it.
    """

    kind: str
    path: str
    bytes: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """The four fields, for ``--json``."""
        return asdict(self)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links count as themselves."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size if os.path.lexists(path) else 0
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total


def zoo_garbage(zoo: Zoo) -> Iterator[Garbage]:
    """Leftovers of killed writers, empty folders, and indexes of zoos that are gone."""
    for path in temporaries(zoo):
        if is_dead(path):
            lock = 0 if path.name.endswith(LOCK_SUFFIX) else size_of(path)
            yield Garbage("leftover", str(path), lock, "left by a writer that was killed")
    for path in _empty(zoo):
        yield Garbage("folder", str(path), 0, "holds nothing")
    folder = index_folder()
    for path in sorted(folder.glob("*.json")) if folder and folder.is_dir() else ():
        root = _indexed(path)
        if root is None or not Path(root).is_dir():
            what = f"the index of {root}, which is gone" if root else "no index that can be read"
            yield Garbage("index", str(path), size_of(path), what)


def remove_garbage(zoo: Zoo, item: Garbage) -> bool:
    """Remove one finding of :func:`zoo_garbage`; False if it is gone, or no longer garbage.

    Raises:
        RunError: the system refuses.
    """
    path = Path(item.path)
    if item.kind == "leftover":
        return clear(path, zoo.root)
    try:
        path.rmdir() if item.kind == "folder" else path.unlink()
    except OSError:  # somebody uses it after all, or took it away
        return False
    return True


def _empty(zoo: Zoo) -> list[Path]:
    """Folders below the root with nothing but empty folders in them, the innermost first."""
    found: set[str] = set()
    order = []
    for folder, folders, files in os.walk(zoo.root, topdown=False):
        inside = {os.path.join(folder, name) for name in folders}
        hidden = os.path.basename(folder).startswith(TEMPORARY)
        if not files and inside <= found and folder != str(zoo.root) and not hidden:
            found.add(folder)
            order.append(Path(folder))
    return order


def _indexed(path: Path) -> str | None:
    try:
        root = json.loads(path.read_bytes())["root"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return root if isinstance(root, str) else None
