"""Where a zoo lies, and how a command line names it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.files import user_path

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry

DEFAULT_ROOT = "adapters_zoo"


def zoo_root(root: str | Path | None = None) -> Path:
    """``root``, else ``$MTL_ZOO``, else ``./adapters_zoo``. Raises RequestError."""
    return user_path(root or os.environ.get("MTL_ZOO") or DEFAULT_ROOT, "--zoo or MTL_ZOO")


def zoo_option(root: Path) -> str:
    """`` --zoo DIR`` for a command that is to find the zoo at ``root``; empty where it would."""
    return "" if root == zoo_root() else f" --zoo {shlex.quote(str(root))}"


def option_of(entry: Entry) -> str:
    """:func:`zoo_option` of the zoo that an entry lies in."""
    return zoo_option(entry.folder.parents[entry.ref.count("/")])
