"""What a report's page says of sources: their shares per layer, and how much each helps alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mtl.errors import MtlError
from mtl.report.html import listed, text
from mtl.report.page_figures import labelled, left_out
from mtl.report.page_tables import Cell, table, word
from mtl.words import counted
from mtl.zoo.composition import source_weights

if TYPE_CHECKING:
    from mtl.report.tables import Row
    from mtl.zoo import Entry

MAPS = 24
"""Compositions whose shares a page shows."""
ACROSS = 64
"""Sites, sources or targets of one map; of a larger one only so many are shown, which is said."""
FAINT = 0.02
"""Full colour of a transfer matrix stands for so much at least: next to nothing looks so."""
STEPS = 5
"""Shades of a map, on each side of its middle."""


@dataclass(frozen=True)
class Transfer:
    """Measured transfer as a matrix, see :func:`mtl.graph.transfer_matrix`; values are NaN where
    nothing was measured.

    Attributes:
        missing: why there is none, in words; empty where there is one.
        said: what of the evidence could not be read.
    """

    method: str = ""
    targets: Sequence[str] = ()
    sources: Sequence[str] = ()
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    low: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    high: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    caveats: Mapping[tuple[str, str], str] = field(default_factory=dict)
    missing: str = ""
    said: Sequence[str] = ()


def shade(value: float, middle: float, reach: float) -> str:
    """The class of a cell: how far ``value`` is above (``p1`` … ``p5``) or below the middle."""
    part = (value - middle) / reach if reach > 0 else 0.0
    step = min(STEPS, round(abs(part) * STEPS))
    return "n" if step == 0 else f"n {'p' if part > 0 else 'm'}{step}"


def all_shares(rows: Sequence[tuple[Row, Sequence[Entry]]]) -> str:
    """A map per composition: each source's share of what is mixed, per layer, mean over seeds."""
    parts, unknown, found = [], [], 0
    for row, entries in rows:
        if row.kind != "composition" or row.sources < 2:
            continue
        found += 1
        if found > MAPS:
            continue
        try:
            parts.append(_shares(row, entries))
        except MtlError as error:
            unknown.append(f"{row.task}, {labelled(row)}: {error}")
    if not found:
        return "<p>There is no composition of several sources among the entries.</p>"
    more = left_out(found - MAPS, "composition")
    said = listed(f"not measured: {text(line)}" for line in unknown) if unknown else ""
    return f'<div class="maps">{"".join(parts)}</div>{said}{more}'


def _shares(row: Row, entries: Sequence[Entry]) -> str:
    stored = [source_weights(entry) for entry in entries]
    known = [each for each in stored if each is not None]
    if not known:
        raise MtlError("its entries store no weights per source")
    first = known[0]
    alike = [each.share for each in known if each.sites == first.sites]
    share = np.mean(alike, axis=0)
    names = [str(parent["task"]) for parent in entries[0].manifest.parents]
    even = 1 / len(names)
    lines = []
    overall = share.mean(axis=1)
    reach = max(float(np.abs(share - even).max()), even / 4)
    sites = list(first.sites)[:ACROSS]
    digits = 2 if reach > 0.05 else 3
    for place, name in enumerate(names[:ACROSS]):
        cells = [
            Cell(f"{value:.{digits}f}", float(value), shade(float(value), even, reach))
            for value in (overall[place], *share[place, : len(sites)])
        ]
        lines.append([word(name), *cells])
    title = f"{row.task}, {labelled(row)}: {counted(len(alike), 'seed')}"
    title += f", even would be {even:.{digits}f}"
    if len(first.sites) > ACROSS or len(names) > ACROSS:
        title += f"; the first {ACROSS} of {len(names)} sources and {len(first.sites)} layers"
    heads = [
        "source",
        "all layers",
        *(f"layer {site}" if site[:1].isdigit() else site for site in sites),
    ]
    return table(title, heads, lines)


def transfer(found: Transfer) -> str:
    """The matrix: a row per target, a column per source."""
    remarks = listed(map(text, found.said)) if found.said else ""
    if found.missing:
        return f"<p>{text(found.missing)}</p>{remarks}"
    finite = np.abs(found.values[np.isfinite(found.values)])
    reach = max(float(finite.max()) if len(finite) else 0.0, FAINT)
    rows = []
    for i, target in enumerate(found.targets[:ACROSS]):
        cells = [word(target)]
        for j, source in enumerate(found.sources[:ACROSS]):
            value, low, high = found.values[i, j], found.low[i, j], found.high[i, j]
            if not np.isfinite(value):
                cells.append(Cell("", None, "none"))
                continue
            star = "*" if high > low and (low > 0 or high < 0) else ""
            doubt = found.caveats.get((target, source))
            why = f' <abbr title="{text(doubt)}">(!)</abbr>' if doubt else ""
            cells.append(
                Cell(f"{value:+.3f}{star}{why}", float(value), shade(float(value), 0.0, reach))
            )
        rows.append(cells)
    cutoff = ""
    if max(len(found.targets), len(found.sources)) > ACROSS:
        cutoff = (
            f"; the first {ACROSS} of {len(found.targets)} targets, {len(found.sources)} sources"
        )
    title = f"Measured transfer ({found.method}), full colour at ±{reach:.3f}{cutoff}"
    return table(title, ["target \\ source", *found.sources[:ACROSS]], rows) + remarks
