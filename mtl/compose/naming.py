"""Names of single sources: ``glue/mrpc:pfeiffer/seed0-ab12cd34`` is one entry among several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl.engine.recorded import all_settings
from mtl.errors import RequestError
from mtl.words import printable
from mtl.zoo.settings import differing, settings_text

if TYPE_CHECKING:
    from mtl.zoo import Entry

_RUN = re.compile(r"seed([0-9]{1,9})(?:-([0-9a-f]{1,64}))?")
SHOWN = 8
"""Digits of a hash in a proposed name: those of the entry's reference."""


@dataclass(frozen=True)
class NamedRun:
    """Which of several entries of a task and method is meant.

    Attributes:
        seed: of its training.
        hash: how its runhash, or its digest, begins; empty for the only one of this seed.
    """

    seed: int
    hash: str = ""

    def fits(self, entry: Entry) -> bool:
        """Whether ``entry`` is such a run."""
        manifest = entry.manifest
        begins = manifest.runhash.startswith(self.hash) or entry.digest.startswith(self.hash)
        return manifest.seed == self.seed and begins

    def __str__(self) -> str:
        return f"seed{self.seed}-{self.hash}" if self.hash else f"seed{self.seed}"


def parse_source(text: str) -> tuple[str, str, NamedRun | None]:
    """``TASK``, ``TASK:METHOD`` or ``TASK:METHOD/seedN-HASH`` in its parts; "" for no method.

    Raises:
        RequestError: what follows the task is none of these.
    """
    task, colon, rest = text.partition(":")
    method, slash, run = rest.partition("/")
    found = _RUN.fullmatch(run)
    if not colon and re.search(r"/seed[0-9]+(-[0-9a-f]+)?$", task):
        *above, name, method, run = task.split("/")
        guess = "/".join([*above[-1:], name])
        raise RequestError(
            f"--sources: {printable(text)!r} looks like a reference of the zoo; name a source as "
            f"TASK:METHOD/seedN-HASH, here {printable(guess)}:{printable(method)}/{printable(run)}."
        )
    if not task or (colon and not method) or (slash and not found):
        raise RequestError(
            f"--sources: {printable(text)!r} names no source: write TASK, TASK:METHOD, or, for one "
            "of several entries, TASK:METHOD/seedN-HASH (a reference ends in seed and hash; the "
            "first digits of the hash are enough)."
        )
    return task, method, NamedRun(int(found[1]), found[2] or "") if found else None


def run_names(entries: Sequence[Entry], task: str | None = None) -> list[str]:
    """A name for each of ``entries`` that :func:`parse_source` reads, and that no other one has.

    Args:
        task: how a command line names their task, where that is not its id.
    """
    starts = [entry.manifest.runhash[:SHOWN] for entry in entries]
    runs = [
        NamedRun(
            entry.manifest.seed,
            start if starts.count(start) == 1 else entry.digest[:SHOWN],
        )
        for entry, start in zip(entries, starts, strict=True)
    ]
    return [
        f"{task or entry.manifest.task['id']}:{entry.manifest.method}/{run}"
        for entry, run in zip(entries, runs, strict=True)
    ]


def differences(entries: Sequence[Entry]) -> list[str]:
    """Per entry the settings in which it differs from another one: ``bottleneck=8, epochs=3``."""
    apart = differing([None] * len(entries), [all_settings(entry.manifest) for entry in entries])
    return [printable(settings_text(dict(sorted(own.items())[:6]))) for own in apart]
