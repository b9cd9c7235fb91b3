"""A comparison with a published table as plain text: verdicts at a glance, then every figure."""

from __future__ import annotations

from mtl.report.against import GAP, NOT_COMPARABLE, NOT_RUN, Cell, Comparison
from mtl.report.published import AVERAGE
from mtl.report.verdicts import BETTER, MOST, NO_MARGIN, REPRODUCED, UNRESOLVED, WORSE
from mtl.words import counted

SIGNS = {
    REPRODUCED: "=",
    BETTER: "+",
    WORSE: "-",
    UNRESOLVED: "?",
    NO_MARGIN: "~",
    NOT_COMPARABLE: "x",
    NOT_RUN: "·",
    GAP: "(none)",
}


def render_against(found: Comparison) -> str:
    """Signs of all cells, the figures of those that were run, what follows, what the words mean."""
    from tabulate import tabulate

    table = found.table
    places = [*(column.name for column in table.columns)]
    if any(cell.on == AVERAGE for cell in found.cells):
        places.append(AVERAGE)
    signs = {(cell.row, cell.on): SIGNS[cell.verdict] for cell in found.cells}
    grid = [[row.name, *(signs.get((row.name, on), "") for on in places)] for row in table.rows]
    parts = [
        f"{table.title}: the zoo against {table.name}, base {table.base}, in {table.unit}",
        tabulate(grid, headers=["", *places], disable_numparse=True),
        _key(found),
    ]
    run = [cell for cell in found.cells if cell.found is not None]
    if run:
        head = ["row", "on", "ours", "published", "difference, 90 %", "margin", "CV %", "verdict"]
        lines = [_line(cell, table.decimals) for cell in run]
        parts.append(tabulate(lines, headers=head, disable_numparse=True))
    parts += [text for text in (differs_text(run), follows_text(found), said_text(run)) if text]
    return "\n\n".join(parts)


def _key(found: Comparison) -> str:
    counts = found.counts()
    listed = ", ".join(f"{SIGNS[name]} {name} {counts[name]}" for name in SIGNS if name in counts)
    return f"{counted(len(found.cells), 'cell')}: {listed}"


def _line(cell: Cell, decimals: int) -> list[str]:
    found = cell.found
    assert found is not None  # only what was run has a line
    assert cell.published is not None
    spread = f" ± {found.s:.{decimals}f}" if found.s is not None else ""
    interval = found.interval(0.9)
    between = "one run" if found.n < 2 else "runs all alike"
    if interval is not None:
        between = f"[{interval[0]:+.{decimals}f}, {interval[1]:+.{decimals}f}]"
    return [
        cell.row,
        cell.on,
        f"{cell.mean:.{decimals}f}{spread} (n={found.n})",
        f"{cell.published:.{decimals}f} (n={found.n0}{'?' if 'n₀ = 1' in found.assumed else ''})",
        f"{found.d:+.{decimals}f} {between}",
        "no δ" if cell.margin is None else f"{cell.margin:g}",
        "" if cell.cv is None else f"{cell.cv:.2f}",
        verdict_text(cell),
    ]


def verdict_text(cell: Cell) -> str:
    """The verdict of a cell that was run; of an unresolved one what it would take."""
    if cell.verdict != UNRESOLVED or cell.found is None:
        return cell.verdict
    if cell.needs is not None:
        return f"unresolved: {cell.needs - cell.found.n} more seeds if all stays as it is"
    if not cell.found.s:
        return "unresolved: " + ("one seed" if cell.found.n < 2 else "seeds that are all alike")
    return (
        f"unresolved: no {MOST} seeds decide it, the published mean of {cell.found.n0} is too "
        "uncertain"
    )


def differs_text(cells: list[Cell]) -> str:
    """What is not comparable and why, rows that differ alike on one line."""
    why: dict[str, list[str]] = {}
    for cell in cells:
        if cell.differs and cell.on != AVERAGE:
            why.setdefault("; ".join(cell.differs), []).append(f"{cell.row} on {cell.on}")
    return "\n".join(f"not comparable, {text}: {', '.join(where)}" for text, where in why.items())


def follows_text(found: Comparison) -> str:
    """Rank correlations, the source's conclusions and the variation, a line each."""
    lines = []
    if found.ranks:
        said = ", ".join(f"{on} {rho:+.2f} ({n})" for on, (rho, n) in found.ranks.items())
        lines.append(f"rank correlation of the rows, ours with published (rows): {said}")
    tested = [item for item in found.conclusions if item.gain is not None]
    if tested:
        holds = sum(item.verdict == "holds" for item in tested)
        lines.append(
            f"conclusions of the source: {holds} of {len(tested)} that were run hold"
            f" ({len(found.conclusions)} in all; paired by seed, Holm)"
        )
    for item in tested:
        assert item.gain is not None
        low, high = item.gain.low, item.gain.high
        between = "one seed" if low is None or high is None else f"[{low:+.2f}, {high:+.2f}]"
        p = "" if item.p is None else f", p = {item.p:.3f}"
        lines.append(f"  {item.text}: {item.gain.mean:+.2f} {between}{p}: {item.verdict}")
    variations = [cell.cv for cell in found.cells if cell.cv is not None and cell.on != AVERAGE]
    if variations:
        mean = sum(variations) / len(variations)
        lines.append(
            f"coefficient of variation: {mean:.2f} % on average over {len(variations)} cells"
        )
    return "\n".join(lines)


def said_text(cells: list[Cell]) -> str:
    """What the words of a comparison mean, and what was assumed, a line each."""
    assumed = sorted({text for cell in cells if cell.found for text in cell.found.assumed})
    notes = [
        "ours: mean ± standard deviation over seeds; difference: ours − published with its 90 % "
        "interval; reproduced: inside ± margin (TOST, 5 %); + and -: beyond it, and not 0 at 5 % "
        "(Holm over the table)"
    ]
    if assumed:
        notes.append(f"not published, and taken to be so: {', '.join(assumed)}")
    other: dict[str, list[str]] = {}
    for cell in cells:
        for note in cell.notes:
            other.setdefault(note, []).append(f"{cell.row} on {cell.on}")
    notes += [f"{note}: {', '.join(where)}" for note, where in other.items()]
    return "\n".join(f"note: {note}" for note in notes)
