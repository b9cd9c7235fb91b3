"""From what a person types to the folder of an entry."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.errors import RequestError, did_you_mean
from mtl.zoo.names import MANIFEST, printable
from mtl.zoo.staging import is_temporary

if TYPE_CHECKING:
    from mtl.zoo.store import Zoo

_HEX = re.compile(r"[0-9a-f]{6,64}")


def find(zoo: Zoo, key: str) -> Path:
    """The folder of the entry called ``key``; see :meth:`mtl.zoo.store.Zoo.get`.

    Raises:
        RequestError: none or several; names the closest one, or all that match.
    """
    direct = _direct(zoo, key)
    if direct is not None:
        return direct
    listed = zoo.summaries()
    end = f"/{key.strip('/')}"
    matches = [
        summary
        for summary in listed
        # the run's hash may be left out: entail/scalearn/seed0
        if f"/{summary.ref}".endswith(end) or f"/{summary.ref.rpartition('-')[0]}".endswith(end)
    ]
    if not matches and _HEX.fullmatch(key):
        matches = [
            summary
            for summary in listed
            if summary.digest.startswith(key) or summary.runhash.startswith(key)
        ]
    if len(matches) == 1:
        return zoo.root / matches[0].ref
    if matches:
        names = "\n  ".join(f"{found.ref}  {found.digest[:12]}" for found in matches)
        raise RequestError(f"{printable(key)!r} is ambiguous; say which one:\n  {names}")
    if not listed:
        raise RequestError(f"There is no entry {printable(key)!r}: the zoo {zoo.root} is empty.")
    guess = did_you_mean(key, [summary.ref for summary in listed])
    raise RequestError(
        f"There is no entry {printable(key)!r} among the {len(listed)} of the zoo {zoo.root}."
        f"{guess} 'python -m mtl.zoo ls' lists them; give a reference, its last parts, or at least "
        "6 digits of a digest or runhash."
    )


def _direct(zoo: Zoo, key: str) -> Path | None:
    """The folder of an entry that ``key`` names by reference, or by a path that leads there."""
    for candidate in (zoo.root / key.strip("/"), Path(key).absolute()):
        with contextlib.suppress(ValueError, RequestError, OSError):
            ref = Path(os.path.normpath(candidate)).relative_to(zoo.root).as_posix()
            folder = zoo.path(ref)
            if (folder / MANIFEST).is_file() and not is_temporary(folder.name):
                return folder
    return None
