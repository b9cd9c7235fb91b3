"""Bases that this machine has loaded before: what a plan needs of them, without loading them again.

A record holds a base's identity beside the marks of the files that it was loaded from. It counts as
long as none of them was touched and the code that made it is the same; a damaged one counts for
nothing. Nothing trains on it: who uses the encoder or the tokenizer loads the base and compares
(:func:`mtl.backbone.backbones.load_backbone`).
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.identity import Base
from mtl.backbone.model_files import CONFIG
from mtl.errors import MtlError
from mtl.remembered import computed, forget, keep_computed, made_by

if TYPE_CHECKING:
    from mtl.backbone.reference import ModelReference

KIND = "bases"
_OTHER_CACHES = (
    "TRANSFORMERS_CACHE",
    "PYTORCH_TRANSFORMERS_CACHE",
    "PYTORCH_PRETRAINED_BERT_CACHE",
)
_SNAPSHOT = re.compile(r"snapshots/([0-9a-f]{40})$")

Marks = tuple[tuple[str, int, int, int, int], ...]
"""Of every file in a folder: name, times, size and inode. Equal as long as nobody wrote one."""


@dataclass(frozen=True)
class KnownBase:
    """A base's identity, and how many tokens its tokenizer allows in one encoding."""

    base: Base
    tokens: int


@dataclass(frozen=True)
class Place:
    """Where a base's files lie: the model's folder, or its snapshot in the Hub's cache."""

    folder: Path
    marks: Marks


def marks_of(folder: Path) -> Marks:
    """The marks of the files in ``folder``; links are followed."""
    found = []
    for path in folder.iterdir():
        if path.is_file():
            stat = path.stat()
            times = (stat.st_mtime_ns, stat.st_ctime_ns)
            found.append((path.name, *times, stat.st_size, stat.st_ino))
    return tuple(sorted(found))


def find_place(reference: ModelReference) -> Place | None:
    """Where the files of a model lie now; None where only loading it can tell.

    The Hub is asked which commit a name means, as loading asks it.
    """
    with contextlib.suppress(OSError):
        folder = Path(reference.source).resolve() if reference.local else _snapshot(reference)
        if folder is not None:
            return Place(folder, marks_of(folder))
    return None


def _snapshot(reference: ModelReference) -> Path | None:
    if any(os.environ.get(name) for name in _OTHER_CACHES):  # `transformers` looks there
        return None
    from huggingface_hub import hf_hub_download

    # Whatever it raises, loading the model meets the same and says it in words.
    with contextlib.suppress(Exception):
        config = hf_hub_download(reference.source, CONFIG, revision=reference.revision or "main")
        folder = Path(config).parent
        return folder if _SNAPSHOT.search(folder.as_posix()) else None
    return None


def recall_base(reference: ModelReference, place: Place) -> KnownBase | None:
    """What this machine recorded of a base; None where that no longer counts, or is damaged."""
    record = computed(KIND, _key(reference))
    with contextlib.suppress(LookupError, TypeError):
        if record["made_of"] == _made_of(place):
            return KnownBase(Base(**record["base"]), record["tokens"])
    return None


def remember_base(reference: ModelReference, place: Place, known: KnownBase) -> None:
    """Record a base that was loaded from ``place``, unless its files changed meanwhile."""
    with contextlib.suppress(OSError):
        if marks_of(place.folder) == place.marks:
            base = known.base.to_dict()
            record = {"made_of": _made_of(place), "base": base, "tokens": known.tokens}
            keep_computed(KIND, _key(reference), record)


def forget_base(reference: ModelReference) -> None:
    """Remove the record of a base."""
    with contextlib.suppress(MtlError):
        forget(KIND, _key(reference))


def _key(reference: ModelReference) -> str:
    where = str(Path(reference.source).resolve()) if reference.local else reference.source
    return "\n".join((reference.id, where, reference.revision or ""))


def _made_of(place: Place) -> dict[str, Any]:
    """The files, and the code that reads them."""
    return {
        "folder": str(place.folder),
        "files": [list(mark) for mark in place.marks],
        "by": made_by("torch", "transformers", "tokenizers"),
    }
