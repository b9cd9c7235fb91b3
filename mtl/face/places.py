"""Which zoo is meant by what a caller names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtl.errors import RequestError
from mtl.zoo import Entry, Zoo


def root_of(zoo: Zoo | str | Path | None, *entries: Any) -> Path | str | None:
    """The folder of the zoo that is meant: ``zoo``, else that of an entry that was given.

    Raises:
        RequestError: entries of two zoos, and no ``zoo`` that says which is meant.
    """
    if zoo is not None:
        return zoo.root if isinstance(zoo, Zoo) else zoo
    roots = {
        item.folder.parents[item.ref.count("/")] for item in entries if isinstance(item, Entry)
    }
    if len(roots) > 1:
        listed = " and ".join(sorted(map(str, roots)))
        raise RequestError(
            f"The entries are of several zoos, {listed}: pull or copy them into one."
        )
    return next(iter(roots), None)
