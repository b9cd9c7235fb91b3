"""Which names may appear in a zoo. Names from outside are hostile until they pass here.

A reference (``ref``) or a file name is a relative posix path of safe parts: ASCII letters, digits,
``_ - . +``, no leading dot, no ``..``, no trailing dot, none of the device names of Windows. So no
path built from them leaves the folder it is joined to, on any system.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mtl.errors import RequestError
from mtl.files import safe_part

MANIFEST = "manifest.json"
CARD = "README.md"
MAX_PATH = 400
"""Longest relative path in characters: room enough below a root for every file system."""

TENSOR_SUFFIX = ".safetensors"
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz"}
"""Formats that can carry code: nothing of ours writes or reads them."""

SHARES = "shares.safetensors"
"""How much a composition uses each of its sources (:mod:`mtl.zoo.composition`)."""
_PREDICTIONS = re.compile(r"predictions(?:-([^/]+?))?(?:/(.+))?\.safetensors")
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")


def show(value: Any) -> str:
    """``value`` as messages show it: short, and without control characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def safe_name(name: str, what: str) -> str:
    """Return ``name`` if it may be one part of a path in a zoo.

    Raises:
        RequestError: see :func:`mtl.files.safe_part`; also trailing dots and device names.
    """
    safe_part(name, what)
    if name.endswith(".") or _DEVICES.fullmatch(name):
        raise RequestError(
            f"{what} {name!r} cannot be used as a folder or file name: some systems reserve it. "
            "Choose another one."
        )
    return name


def safe_path(path: str, what: str) -> str:
    """Return ``path`` if it is a relative posix path of safe names.

    Raises:
        RequestError: absolute, with ``..``, empty parts, odd characters, or too long.
    """
    if len(path) > MAX_PATH:
        raise RequestError(
            f"{what} {path[:60]!r}… has {len(path)} characters; at most {MAX_PATH} are allowed."
        )
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            raise RequestError(
                f"{what} {path!r} is not a plain relative path: write its parts joined by '/', "
                "without '..', '.', empty parts or a leading '/'."
            )
        safe_name(part, what)
    return path


def clash(paths: Iterable[str]) -> tuple[str, str] | None:
    """Two of ``paths`` that cannot stand beside each other on every system, or None.

    They differ only in case (in any of their parts), or one is a folder in the other.
    """
    whole: dict[str, str] = {}
    for path in paths:
        folded = path.casefold()
        if folded in whole and whole[folded] != path:
            return whole[folded], path
        whole[folded] = path
    folders: dict[str, tuple[str, str]] = {}  # folded prefix → as it is spelt, and by which path
    for path in whole.values():
        for end in (index for index, letter in enumerate(path) if letter == "/"):
            spelt, folded = path[:end], path[:end].casefold()
            if folded in whole:
                return whole[folded], path
            first = folders.setdefault(folded, (spelt, path))
            if first[0] != spelt:
                return first[1], path
    return None


def is_safe_name(name: str) -> bool:
    """Whether :func:`safe_name` would let ``name`` pass."""
    try:
        safe_name(name, "name")
    except RequestError:
        return False
    return True


def is_pickle(name: str) -> bool:
    """Whether a file of this name is of a format that can carry code."""
    return Path(name).suffix.lower() in PICKLES


def predictions_file(split: str = "test", task: str = "") -> str:
    """The file of an entry with its answers on ``split``; ``task`` is one of a joint entry's.

    ``predictions.safetensors`` and ``predictions/<task id>.safetensors`` hold the test split,
    ``predictions-dev.safetensors`` and ``predictions-dev/<task id>.safetensors`` the split ``dev``.
    """
    name = "predictions" if split == "test" else f"predictions-{split}"
    return f"{name}/{task}{TENSOR_SUFFIX}" if task else f"{name}{TENSOR_SUFFIX}"


def predictions_of(name: str) -> tuple[str, str] | None:
    """Split and task (empty where it is of no joint entry) of a predictions file, else None."""
    found = _PREDICTIONS.fullmatch(name)
    return (found[1] or "test", found[2] or "") if found else None


def is_derived(name: str) -> bool:
    """Whether the file ``name`` of an entry follows from its others: answers, shares."""
    return name == SHARES or predictions_of(name) is not None
