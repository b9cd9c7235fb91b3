"""Near-duplicates: entries that hold the same, or nearly the same, as another one.

Three degrees, from cheap to costly: the same weights byte for byte; the same request (base, task,
data, method, all settings, seed, sources) with another result; weights of the same shapes that
differ by less than :data:`NEAR` of their length. The first usually means that a setting had no
effect or that a folder was copied, the others that one of the two is enough.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl.errors import ZooError
from mtl.zoo.place import zoo_option
from mtl.zoo.summary import Summary

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry
    from mtl.zoo.reader import ZooReader

NEAR = 1e-3
"""Relative distance below which weights count as nearly the same; two seeds differ by about 1."""
COMPARED = 8
"""A new entry is compared value by value with so many of its kind at most, the latest ones."""
LARGEST = 64 << 20
"""Entries with larger weights are compared by their hashes only."""

_LOG = logging.getLogger("mtl.zoo")


@dataclass(frozen=True)
class Twin:
    """Two entries that are nearly one: ``how`` is ``weights``, ``settings`` or ``near``."""

    ref: str
    other: str
    how: str

    def __str__(self) -> str:
        said = {
            "weights": "has exactly the weights of",
            "settings": "was made with the same settings, data and seed as",
            "near": "has nearly the weights of",
        }
        return f"{self.ref} {said[self.how]} {self.other}"


def twins(listed: Iterable[Summary]) -> list[Twin]:
    """Every summary that has the weights or the request of an earlier one, by hashes alone.

    Each is named once, with the entry that was created first.
    """
    groups: dict[tuple[str, str], list[Summary]] = defaultdict(list)
    for summary in listed:
        groups["weights", summary.weights].append(summary)
        groups["settings", summary.settings].append(summary)
    found: dict[str, Twin] = {}
    for (how, _), group in sorted(groups.items(), key=lambda item: item[0][0] != "weights"):
        first, *rest = sorted(group, key=lambda summary: (summary.created, summary.ref))
        for summary in rest:
            found.setdefault(summary.ref, Twin(summary.ref, first.ref, how))
    return sorted(found.values(), key=lambda twin: twin.ref)


def twin_of(zoo: ZooReader, entry: Entry) -> Twin | None:
    """The near-duplicate of a newly stored entry among those of its base and task, or None."""
    below = "/".join(entry.ref.split("/")[:-2])
    listed = zoo.summaries(kind=entry.manifest.kind, below=below)
    own = next((summary for summary in listed if summary.ref == entry.ref), None)
    others = [summary for summary in listed if summary.ref != entry.ref]
    if own is None:
        return None
    for how in ("weights", "settings"):
        for summary in others:
            if getattr(summary, how) == getattr(own, how):
                return Twin(entry.ref, summary.ref, how)
    return _near(zoo, entry, [s for s in others if s.method == own.method])


def warn_of_twin(zoo: ZooReader, entry: Entry) -> None:
    """Log a warning if a newly stored entry is nearly another one."""
    twin = twin_of(zoo, entry)
    if twin is not None:
        _LOG.warning(
            "%s; 'python -m mtl.zoo diff %s %s%s' compares them.",
            twin,
            twin.ref,
            twin.other,
            zoo_option(zoo.root),
        )


def _near(zoo: ZooReader, entry: Entry, others: list[Summary]) -> Twin | None:
    from mtl.zoo.diff import distances, weight_bytes

    if weight_bytes(entry) > LARGEST:
        return None
    latest = sorted(others, key=lambda summary: summary.created, reverse=True)[:COMPARED]
    for other in zoo.read(latest):
        try:
            found = distances(entry, other)
        except ZooError:
            continue  # damaged or removed meanwhile: fsck names it
        if not found.only and found.whole is not None and found.whole.relative < NEAR:
            return Twin(entry.ref, other.ref, "near")
    return None
