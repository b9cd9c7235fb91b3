"""The same run twice: zoos of several people and machines in one.

A run's hash says what was asked for, an entry's digest what came out. The same request on another
machine may end in other last digits: two entries of one run. A zoo keeps both. The one that came
later from elsewhere stands beside the first, as ``seed0-<runhash>+<digest>``; a name without its
digest means the first (:func:`first_of`). Reports count one of them (:func:`once`).

A run's hash in a manifest is a claim, so entries are of one run only where everything else that
says what was asked for agrees, too (:func:`request`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.files import sha256_json

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry
    from mtl.zoo.manifest import Manifest

JOIN = "+"
"""Between the place of a run and the digest of a result that another one was there before."""
SHOWN = 8
"""Digits of a digest in a reference."""


def request(manifest: Manifest) -> str:
    """Hash of what was asked for, as the manifest says: all but the run's own hash."""
    asked = {
        key: getattr(manifest, key)
        for key in ("kind", "method", "method_settings", "run_settings", "seed", "placement")
    }
    return sha256_json(
        {
            **asked,
            "base": manifest.base["fingerprint"],
            "task": manifest.task["id"],
            "data": manifest.data["fingerprint"],
            "parents": [parent["digest"] for parent in manifest.parents],
        }
    )


def same_run(one: Manifest, other: Manifest) -> bool:
    """Whether two entries are results of one run."""
    return one.runhash == other.runhash and request(one) == request(other)


def beside(ref: str, digest: str) -> str:
    """Where a result stands whose run has another result at ``ref``."""
    return f"{ref}{JOIN}{digest[:SHOWN]}"


def plain(ref: str) -> str:
    """A reference without the digest that :func:`beside` put behind it."""
    above, slash, name = ref.rpartition("/")
    return f"{above}{slash}{name.partition(JOIN)[0]}"


def first_of(entries: Iterable[Entry]) -> list[Entry]:
    """Of entries of one run the one at the run's own place: what names and sources mean.

    So nothing that is pulled changes what a command means that was there before.
    """
    listed = list(entries)
    own = {_key(entry) for entry in listed if plain(entry.ref) == entry.ref}
    return [e for e in listed if plain(e.ref) == e.ref or _key(e) not in own]


def once(entries: Iterable[Entry]) -> list[Entry]:
    """Of entries of one run one, in the order given: a verified one before others, the earliest."""
    listed = list(entries)
    counted: dict[tuple[str, str], Entry] = {}
    for entry in sorted(listed, key=_order):
        counted.setdefault(_key(entry), entry)
    return [entry for entry in listed if counted[_key(entry)] is entry]


def _order(entry: Entry) -> tuple[bool, str, str]:
    return entry.manifest.verified is None, entry.manifest.created, entry.digest


def _key(entry: Entry) -> tuple[str, str]:
    return entry.manifest.runhash, request(entry.manifest)


@dataclass(frozen=True)
class Again:
    """Results of one run: the ``counted`` one, the ``others``, and how far they lie apart.

    Attributes:
        metric, split: where the difference to the counted one is largest; empty if no metric is
            in both.
        difference: its absolute value.
    """

    counted: str
    others: tuple[str, ...]
    metric: str = ""
    split: str = ""
    difference: float = 0.0

    def __str__(self) -> str:
        apart = "no score in common"
        if self.metric:
            apart = f"largest difference {self.difference:.4g} ({self.metric} on {self.split})"
        return f"{self.counted} counts, {', '.join(self.others)} is the same run: {apart}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dict(self.__dict__)


def again(entries: Iterable[Entry]) -> list[Again]:
    """Every run that entries hold more than one result of, largest difference first."""
    runs: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        runs.setdefault(_key(entry), []).append(entry)
    found = [_compared(sorted(group, key=_order)) for group in runs.values() if len(group) > 1]
    return sorted(found, key=lambda item: (-item.difference, item.counted))


def _compared(group: Sequence[Entry]) -> Again:
    first, *rest = group
    apart = [item for other in rest for item in _apart(first, other)]
    others = tuple(entry.ref for entry in rest)
    if not apart:
        return Again(first.ref, others)
    difference, metric, split = max(apart)
    return Again(first.ref, others, metric, split, difference)


def _apart(one: Entry, other: Entry) -> Iterator[tuple[float, str, str]]:
    for split, metrics in one.manifest.metrics.items():
        for name, item in metrics.items():
            theirs = other.manifest.metrics.get(split, {}).get(name) or {}
            values = (item or {}).get("value"), theirs.get("value")
            if values[0] is not None and values[1] is not None:
                yield abs(float(values[0]) - float(values[1])), name, split


SAID = 5
"""Runs with several results that a report names."""


def again_text(entries: Iterable[Entry]) -> list[str]:
    """Lines on runs with several results among the entries; none where there are none."""
    found = again(entries)
    if not found:
        return []
    several = "1 run has" if len(found) == 1 else f"{len(found):,} runs have"
    lines = [
        f"{several} results of several machines; each run counts once (the verified result, then "
        f"the earliest)"
    ]
    lines += [str(item) for item in found[:SAID]]
    if len(found) > SAID:
        lines.append(f"{len(found) - SAID:,} more differ by at most {found[SAID].difference:.4g}")
    return lines
