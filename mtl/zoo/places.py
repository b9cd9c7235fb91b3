"""Where entries lie: the folders of a zoo, walked with one look at each entry."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mtl.errors import RunError
from mtl.words import printable
from mtl.zoo.names import MANIFEST, is_safe_name
from mtl.zoo.problem import Problem
from mtl.zoo.summary import Mark, mark_of


def places(root: Path, below: str, report: Callable[[Problem], None]) -> Iterator[tuple[str, Mark]]:
    """Reference and mark of every folder with a manifest; in no order.

    Nothing inside an entry, no temporaries, no links. What cannot be read, or has a name that
    cannot travel, is given to ``report``.

    Args:
        below: only what lies in this folder, a reference; empty for all.

    Raises:
        RunError: ``root`` itself cannot be read.
    """
    todo = [below]
    while todo:
        ref = todo.pop()
        path = f"{root}/{ref}" if ref else str(root)
        mark = _mark(path) if ref else None
        if mark is not None:
            yield ref, mark
            continue
        try:
            with os.scandir(path) as listing:
                items = list(listing)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            message = f"cannot be read: {error.strerror or error}."
            if not ref:
                raise RunError(f"Cannot read the zoo {root}: {message}") from error
            report(Problem("unreadable", ref, message, ""))
            continue
        for item in items:
            if item.is_dir(follow_symlinks=False) and not item.name.startswith("."):
                inner = f"{ref}/{item.name}" if ref else item.name
                if is_safe_name(item.name):
                    todo.append(inner)
                else:
                    report(name_problem(inner))


def _mark(folder: str) -> Mark | None:
    # One call per entry: of ten thousand, listing each folder would cost three times as much.
    try:
        return mark_of(os.lstat(f"{folder}/{MANIFEST}"))
    except OSError:
        return None


def name_problem(path: str) -> Problem:
    """The finding for a folder or file whose name cannot travel."""
    return Problem(
        "name",
        printable(path),
        "has a name that cannot be used in a zoo; nothing in it is read.",
        "Rename it: letters, digits, '_', '-', '.' and '+'.",
    )


_NUMBERS = re.compile(r"(\d+)")


def natural(text: str) -> list[Any]:
    """Sort key that puts seed2 before seed10."""
    parts = _NUMBERS.split(text)
    parts[1::2] = map(int, parts[1::2])  # type: ignore[call-overload]
    return parts
