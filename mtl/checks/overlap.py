"""Texts that stand in two places: exact ones by hash, near ones by MinHash over character shingles.

Near duplicates of n rows are looked for among m others in time and memory linear in both. Every
text becomes the set of its shingles (5 characters in a row, after case, punctuation and spaces are
normalised); 64 minima of hashes of that set (Broder 1997) agree, each with probability J, where J =
|A ∩ B| / |A ∪ B| is the Jaccard similarity of two sets. Rows whose minima agree in one of 16 bands
of 4 are compared; at J = 0.8 that is all but 1 in 5,000 of the pairs. What is reported was compared
exactly: the minima only propose.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SHINGLE = 5
HASHES, BANDS = 64, 16
SHORTEST = 20
"""Characters; shorter texts have too few shingles to be nearly anything."""
READ = 4000
"""Characters of a text that are looked at; encoders read fewer."""
_BLOCK = 1 << 21  # characters hashed at once: 16 MB per array
_TRIED = 16  # candidates of one band that are compared per row
_SPACE = re.compile(r"[\W_]+")

Rows = Sequence[tuple[str, ...]]
"""Texts by row: one each per template."""


@dataclass(frozen=True)
class Match:
    """A row and the one of the others that is most like it.

    Attributes:
        row, other: their numbers.
        similarity: the least Jaccard similarity of their texts; 1 for equal after normalising.
    """

    row: int
    other: int
    similarity: float


def exact_matches(rows: Rows, others: Rows) -> list[Match]:
    """Each row that stands among the others as it is, with the first of them."""
    known: dict[tuple[str, ...], int] = {}
    for place, texts in enumerate(others):
        known.setdefault(texts, place)
    return [Match(row, known[texts], 1.0) for row, texts in enumerate(rows) if texts in known]


def near_matches(rows: Rows, others: Rows, threshold: float) -> list[Match]:
    """Each row that is nearly one of the others: all its texts are as similar as ``threshold``.

    Rows that are exactly there count, too. Rows with fewer characters than :data:`SHORTEST` in all
    are left out. Equal texts are hashed once, however often they stand.
    """
    if not rows or not others or threshold <= 0:
        return []
    ours, signed = _signed(rows)
    theirs, signed_others = _signed(others)
    found = []
    places, matched = _candidates(signed, signed_others)
    for place, other in zip(places.tolist(), matched.tolist(), strict=True):
        row, twin = int(ours[place]), int(theirs[other])
        similarity = min(map(similarity_of, rows[row], others[twin]), default=0.0)
        if similarity >= threshold:
            found.append(Match(row, twin, similarity))
    return found


def similarity_of(text: str, other: str) -> float:
    """The Jaccard similarity of two texts' shingles."""
    if text == other:
        return 1.0
    ours, theirs = _shingles(normalise(text)), _shingles(normalise(other))
    return len(ours & theirs) / len(ours | theirs)


def normalise(text: str) -> str:
    """Lower case, compatible characters unified, all but letters and digits as single spaces."""
    folded = unicodedata.normalize("NFKC", text[:READ]).casefold()
    return _SPACE.sub(" ", folded).strip()


def _shingles(text: str) -> set[str]:
    text = text.ljust(SHINGLE)
    return {text[place : place + SHINGLE] for place in range(len(text) - SHINGLE + 1)}


def _signed(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows long enough, and their minima (n,HASHES) over the shingles of all texts.

    The minimum over a union is the least of the minima, so each text is hashed once. Shingles of
    different templates differ: a question is not found in an answer.
    """
    total = np.zeros(len(rows), dtype=np.int64)
    minima = np.full((len(rows), HASHES), np.iinfo(np.uint32).max, dtype=np.uint32)
    for column in range(len(rows[0])):
        number: dict[str, int] = {}
        place = np.fromiter(
            (number.setdefault(texts[column], len(number)) for texts in rows), np.int64, len(rows)
        )
        normal = [normalise(text) for text in number]
        total += np.fromiter(map(len, normal), np.int64, len(normal))[place]
        np.minimum(minima, _minima(normal, column)[place], out=minima)
    kept = np.flatnonzero(total >= SHORTEST)
    return kept, minima[kept]


def _minima(texts: Sequence[str], salt: int) -> np.ndarray:
    """(n,HASHES) uint32: the least hash of each text's shingles, for every hash function."""
    rng = np.random.RandomState(11)
    factor = rng.randint(1, 1 << 62, size=HASHES, dtype=np.int64).astype(np.uint64) * 2 + 1
    offset = rng.randint(0, 1 << 62, size=HASHES, dtype=np.int64).astype(np.uint64)
    minima = np.empty((len(texts), HASHES), dtype=np.uint32)
    for first, block in _blocks(texts):
        codes, starts = _hashed_shingles(block)
        codes = _mix(codes ^ np.uint64(salt * 0x9E3779B97F4A7C15 % (1 << 64)))
        for place in range(HASHES):
            hashed = ((codes * factor[place] + offset[place]) >> np.uint64(32)).astype(np.uint32)
            minima[first : first + len(block), place] = np.minimum.reduceat(hashed, starts)
    return minima


def _blocks(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    block: list[str] = []
    first, size = 0, 0
    for place, text in enumerate(texts):
        if block and size + len(text) > _BLOCK:
            yield first, block
            first, size, block = place, 0, []
        block.append(text.ljust(SHINGLE))
        size += len(block[-1])
    if block:
        yield first, block


def _hashed_shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """A 64-bit number per shingle of all texts, and where each text's numbers begin."""
    joined = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    windows = len(joined) - SHINGLE + 1
    codes = np.zeros(windows, dtype=np.uint64)
    for place in range(SHINGLE):
        codes = codes * np.uint64(0x100000001B3) + joined[place : place + windows]
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.cumsum(lengths)
    # Windows that reach into the next text are no shingles.
    inside = np.ones(windows, dtype=bool)
    for step in range(1, SHINGLE):
        inside[ends[:-1] - step] = False
    starts = np.cumsum(lengths - SHINGLE + 1) - (lengths - SHINGLE + 1)
    return codes[inside], starts


def _mix(codes: np.ndarray) -> np.ndarray:
    """Spread the bits (the finaliser of MurmurHash3), so that high bits depend on all."""
    codes = (codes ^ (codes >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    codes = (codes ^ (codes >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return codes ^ (codes >> np.uint64(33))


def _candidates(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``ours`` that share a band with one of ``theirs``, and the likeliest of these."""
    best = np.zeros(len(ours), dtype=np.int64)
    matched = np.full(len(ours), -1, dtype=np.int64)
    width = HASHES // BANDS
    for band in range(BANDS):
        keys, other_keys = (
            _keys(minima[:, band * width : (band + 1) * width]) for minima in (ours, theirs)
        )
        order = np.argsort(other_keys, kind="stable")
        other_keys = other_keys[order]
        left = np.searchsorted(other_keys, keys, side="left")
        size = np.searchsorted(other_keys, keys, side="right") - left
        # In a band that many share, candidates are taken from all over it.
        step = np.maximum(size // _TRIED, 1)
        for attempt in range(_TRIED):
            rows = np.flatnonzero(size > attempt * step)
            if not len(rows):
                break
            place = order[left[rows] + attempt * step[rows]]
            agreed = (ours[rows] == theirs[place]).sum(axis=1)
            better = agreed > best[rows]
            best[rows[better]] = agreed[better]
            matched[rows[better]] = place[better]
    rows = np.flatnonzero(matched >= 0)
    return rows, matched[rows]


def _keys(band: np.ndarray) -> np.ndarray:
    keys = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        keys = _mix(keys * np.uint64(31) + column)
    return keys
