"""A table of methods by tasks as plain text, and what its averages are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtl.fitting import fitted
from mtl.report.stats import interval_text
from mtl.words import printable
from mtl.zoo.caveats import MARK, footnotes
from mtl.zoo.settings import settings_text

if TYPE_CHECKING:
    from mtl.report.suite import Cell, SuiteRow, SuiteTable

KINDS = {"adapter": "one adapter per task", "composition": "two-stage", "joint": "joint"}


def average_text(metrics: Mapping[str, int]) -> str:
    """``average of accuracy (5), pearson (1)``: metric, and how many tasks have it."""
    counts = sorted(metrics.items(), key=lambda item: (-item[1], item[0]))
    return "average of " + ", ".join(f"{printable(name)} ({n})" for name, n in counts)


def render_suite(table: SuiteTable) -> str:
    """The table as plain text, one method a row."""
    names = [task.rpartition("/")[2] for task in table.tasks]
    headers = names if len(set(names)) == len(names) else list(table.tasks)
    lines = []
    for row in table.rows:
        seeds = {len(cell.seeds) for cell in row.scores.values()}
        sources = "" if not row.source_steps else f" + {row.source_steps:,.0f} of sources"
        lines.append(
            [
                " ".join([row.method, settings_text(row.settings)]).rstrip(),
                KINDS[row.kind],
                *(_cell(row.scores[t]) if t in row.scores else "–" for t in table.tasks),
                "–" if row.average is None else interval_text(row.average, mark=_doubt(row)),
                f"{row.trainable:,.0f}",
                "–" if row.stored is None else f"{row.stored:,.0f}",
                f"{row.steps:,.0f}" + ("" if row.source_steps is not None else " + ?") + sources,
                " to ".join(str(n) for n in sorted({min(seeds), max(seeds)})) if seeds else "–",
            ]
        )
    head = ["method", "", *headers, "average", "trained/task", "stored/task", "steps", "seeds"]
    text = fitted(lines, head)
    notes = "".join(f"\nnote: {note}" for note in table.notes)
    doubts = footnotes(
        (f"{task}, {row.method}", why)
        for row in table.rows
        for task, cell in row.scores.items()
        for why in cell.caveats
    )
    return (
        f"Suite {table.suite}, base {table.base}: test score per task, mean over seeds\n\n"
        f"{text}{doubts}\n\n"
        f"{average_text(table.average_of)}; "
        "trained/task: parameters trained, a joint run's shared by its tasks; stored/task: 32-bit "
        "numbers kept, sources\nonce for all tasks; steps: of all tasks together." + notes
    )


def _cell(cell: Cell) -> str:
    return f"{cell.mean:.4f}{MARK if cell.caveats else ''}"


def _doubt(row: SuiteRow) -> str:
    return MARK if any(cell.caveats for cell in row.scores.values()) else ""
