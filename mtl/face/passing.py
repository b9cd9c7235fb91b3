"""``mtl.pack`` and ``mtl.unpack``: entries in one file, as ``mtl.zoo`` packs and unpacks them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtl.errors import RequestError
from mtl.face.places import root_of
from mtl.zoo import Entry, Zoo, open_zoo, packing


def pack(
    entries: Entry | str | Sequence[Entry | str],
    file: str | Path,
    *,
    zoo: Zoo | str | Path | None = None,
    replace: bool = False,
) -> Path:
    """Write entries, with the sources they need, into one file for somebody else.

    Examples:
        >>> import mtl
        >>> mtl.pack("entail/scalearn/seed0", "entail.mtlzoo")  # doctest: +SKIP

    Args:
        entries: an entry, its reference, the last parts of it, or the start of its digest; or
            several.
        file: its name ends in ``.mtlzoo``.
        zoo: its folder; None: that of the entries, else ``MTL_ZOO``, else ``adapters_zoo``.
        replace: another file of this name gives way.

    Returns:
        The file.

    Raises:
        RequestError: no such entry, none at all, or another file is there.
        ZooError: an entry is damaged.
        RunError: the system refuses; no file is left behind.
    """
    named = [entries] if isinstance(entries, Entry | str) else list(entries)
    path = Path(file)
    if not named:
        raise RequestError("mtl.pack: no entry was given.")
    if path.suffix != packing.SUFFIX:
        raise RequestError(f"mtl.pack: the file is called NAME{packing.SUFFIX}, not {path.name!r}.")
    keys = [item.ref if isinstance(item, Entry) else item for item in named]
    packing.pack(open_zoo(root_of(zoo, *named)), keys, path, replace=replace)
    return path


def unpack(file: str | Path, *, zoo: Zoo | str | Path | None = None) -> list[Entry]:
    """Put the entries of such a file into a zoo, each checked as a pulled one is.

    Examples:
        >>> import mtl
        >>> model = mtl.load(mtl.unpack("entail.mtlzoo")[-1])  # doctest: +SKIP

    Args:
        zoo: its folder, made if it is not there; None: ``MTL_ZOO``, else ``adapters_zoo``.

    Returns:
        All entries of the file, compositions after their sources.

    Raises:
        RequestError: there is no such file.
        ZooError: it is no archive of ours, damaged, or hostile; nothing was stored.
        RunError: another result is in an entry's place; the system refuses.
    """
    place = open_zoo(root_of(zoo))
    done = packing.unpack(place, Path(file))
    return [place.get(row["digest"]) for row in done.entries]
