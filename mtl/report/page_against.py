"""A comparison with a published table on a report's page: a grid of verdicts, then the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl.report.against import GAP, NOT_COMPARABLE, NOT_RUN, Cell, Comparison
from mtl.report.against_text import SIGNS, follows_text, said_text, verdict_text
from mtl.report.html import listed, text
from mtl.report.page_tables import Cell as Shown
from mtl.report.page_tables import number, table, word
from mtl.report.published import AVERAGE
from mtl.report.verdicts import BETTER, NO_MARGIN, REPRODUCED, UNRESOLVED, WORSE
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.report.tables import Row
    from mtl.zoo import Entry

STYLES = {
    REPRODUCED: "same",
    BETTER: "above",
    WORSE: "below",
    UNRESOLVED: "unsure",
    NO_MARGIN: "unsure",
    NOT_COMPARABLE: "other",
    NOT_RUN: "none",
    GAP: "none",
}


def chip(cell: Cell) -> str:
    """A verdict as a coloured word with its sign."""
    name = cell.verdict
    sign = SIGNS[cell.verdict]
    return f'<span class="chip {STYLES[cell.verdict]}">{text(f"{sign} {name}")}</span>'


def against(found: Comparison) -> str:
    """The grid of verdicts, the figures of what was run, and what follows from them."""
    source = found.table
    places = [column.name for column in source.columns]
    if any(cell.on == AVERAGE for cell in found.cells):
        places.append(AVERAGE)
    by = {(cell.row, cell.on): cell for cell in found.cells}
    grid = []
    for row in source.rows:
        cells = [by.get((row.name, on)) for on in places]
        grid.append([word(row.name), *(_verdict(cell, source.decimals) for cell in cells)])
    counts = found.counts()
    said = ", ".join(f"{counts[name]} {name}" for name in STYLES if name in counts)
    title = f"{source.title}: {counted(len(found.cells), 'cell')}, {said}"
    parts = [
        f"<p>{text(f'{source.title}. Base {source.base}, in {source.unit}.')}</p>",
        table(title, ["published row", *places], grid, sortable=False),
        f"<p>{text(f'{SIGNS[NOT_RUN]} {NOT_RUN}')}; ours above the verdict</p>",
    ]
    run = [cell for cell in found.cells if cell.found is not None]
    if run:
        parts.append(_figures(run, source.decimals))
    else:
        parts.append("<p>None of its cells was run in this zoo.</p>")
    for block in (follows_text(found), said_text(run)) if run else ():
        if block:
            parts.append(listed(map(text, block.splitlines())))
    return "".join(parts)


def _verdict(cell: Cell | None, decimals: int) -> Shown:
    if cell is None:
        return word("")
    if cell.verdict == NOT_RUN:
        return Shown(f'<abbr title="{NOT_RUN}">{SIGNS[NOT_RUN]}</abbr>', plain=True)
    if cell.mean is None:
        return Shown(chip(cell), plain=True)
    return Shown(f"{cell.mean:.{decimals}f}<br>{chip(cell)}", cell.mean)


def _figures(cells: Sequence[Cell], decimals: int) -> str:
    lines = []
    for cell in cells:
        assert cell.found is not None
        between = cell.found.interval(0.9)
        span = "" if between is None else " ".join(f"{end:+.{decimals}f}" for end in between)
        form = f".{decimals}f"
        lines.append(
            [
                word(cell.row),
                word(cell.on),
                number(cell.mean, form),
                number(cell.found.n),
                number(cell.published, form),
                number(cell.found.d, f"+{form}"),
                word(f"[{span}]" if span else "none: one seed, or seeds all alike"),
                Shown("no δ" if cell.margin is None else f"±{cell.margin:g}", cell.margin, "n"),
                Shown(f"{chip(cell)} <small>{text(_more(cell))}</small>", plain=True),
            ]
        )
    heads = ["published row", "on", "ours", "seeds", "published", "difference", "its 90 % interval"]
    return table("Figures behind the verdicts", [*heads, "δ", "verdict"], lines)


def _more(cell: Cell) -> str:
    """What is to be said beside a verdict: what differs, or what it would take."""
    if cell.verdict == NOT_COMPARABLE:
        return "; ".join(cell.differs)
    return verdict_text(cell).partition(": ")[2]


def verdicts_of(found: Comparison, rows: Sequence[tuple[Row, Sequence[Entry]]]) -> dict[int, Shown]:
    """Number of a row → the verdicts of the cells that took its runs."""
    taken: dict[str, list[Cell]] = {}
    for cell in found.cells:
        if cell.on != AVERAGE:
            for ref in cell.refs:
                taken.setdefault(ref, []).append(cell)
    shown = {}
    for place, (_, entries) in enumerate(rows):
        cells = {id(cell): cell for entry in entries for cell in taken.get(entry.ref, ())}
        if cells:
            chips = (f"{text(f'{cell.row} on {cell.on}')} {chip(cell)}" for cell in cells.values())
            shown[place] = Shown("<br>".join(chips), plain=True)
    return shown
