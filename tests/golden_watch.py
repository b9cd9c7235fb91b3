"""A pytest plugin that notes which tensors of tests/golden the tests read.

``pytest -p golden_watch``, with the name of the file to write in ``GOLDEN_WATCH``: a JSON object,
golden file → the names that some test took out of it. Going over all of a file's items takes none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.numpy
import safetensors.torch

import mtl.files

GOLDEN = Path(__file__).parent / "golden"
_TAKEN: dict[str, set[str]] = {}


class Watched(Mapping[str, Any]):
    """The tensors of a file; remembers which were taken."""

    def __init__(self, name: str, tensors: Mapping[str, Any]) -> None:
        self._tensors = tensors
        self._taken = _TAKEN.setdefault(name, set())

    def __getitem__(self, key: str) -> Any:
        value = self._tensors[key]
        self._taken.add(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def items(self) -> Any:
        return self._tensors.items()

    def values(self) -> Any:
        return self._tensors.values()


def watch(path: Any, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """``tensors`` of the file at ``path``, watched if it is one of ours."""
    return Watched(Path(path).name, tensors) if Path(path).parent == GOLDEN else tensors


def _watched(plain: Any) -> Any:
    def load(path: Any, *rest: Any, **options: Any) -> Any:
        found = plain(path, *rest, **options)
        return (
            (watch(path, found[0]), *found[1:]) if isinstance(found, tuple) else watch(path, found)
        )

    return load


# before any test module takes them by name
for module, name in (
    (safetensors.torch, "load_file"),
    (safetensors.numpy, "load_file"),
    (mtl.files, "read_safetensors"),
):
    setattr(module, name, _watched(getattr(module, name)))


def pytest_sessionfinish() -> None:
    taken = {name: sorted(keys) for name, keys in _TAKEN.items()}
    Path(os.environ["GOLDEN_WATCH"]).write_text(json.dumps(taken), encoding="utf-8")
