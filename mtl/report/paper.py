"""A suite's table as papers print it: tasks as columns, methods in groups, best and second marked.

Scores are in points (× 100, two decimals). In every column the best is bold and the second
underlined, among all rows; equal ones share the mark. A score with a caveat keeps its ``?``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from mtl.report.suite import SuiteRow, SuiteTable
from mtl.report.suite_text import KINDS, average_text
from mtl.words import printable
from mtl.zoo.caveats import MARK
from mtl.zoo.settings import settings_text

FORMS = ("latex", "markdown", "csv")
_ESCAPED = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_MARKS = {1: r"\textbf", 2: r"\underline"}


@dataclass(frozen=True)
class Figure:
    """One figure of the table: value and standard deviation in points, ``place`` 1 or 2 or 0."""

    value: float | None
    std: float | None = None
    place: int = 0
    doubt: bool = False


def paper_table(table: SuiteTable, form: str, *, std: bool = False) -> str:
    """The table in a form of :data:`FORMS`.

    Args:
        std: with the standard deviation over seeds behind every task's score.
    """
    names = [task.rpartition("/")[2] for task in table.tasks]
    heads = [*(names if len(set(names)) == len(names) else table.tasks), "average"]
    figures = _figures(table)
    return {"latex": _latex, "markdown": _markdown, "csv": _csv}[form](table, heads, figures, std)


def _figures(table: SuiteTable) -> list[list[Figure]]:
    found = [
        [
            *(
                Figure(100 * cell.mean, None if cell.std is None else 100 * cell.std)
                if (cell := row.scores.get(task))
                else Figure(None)
                for task in table.tasks
            ),
            Figure(100 * row.average.mean) if row.average else Figure(None),
        ]
        for row in table.rows
    ]
    for column in range(len(table.tasks) + 1):
        shown = [_rounded(row[column].value) for row in found]
        order = sorted({value for value in shown if value is not None}, reverse=True)
        for number, value in enumerate(shown):
            old = found[number][column]
            place = order.index(value) + 1 if value is not None else 0
            # A mark says something where there is something worse.
            place = place if place in (1, 2) and place < len(order) else 0
            doubt = _doubtful(table, number, column)
            found[number][column] = Figure(old.value, old.std, place, doubt)
    return found


def _rounded(value: float | None) -> float | None:
    """As it is printed: what looks equal is marked alike."""
    return None if value is None else round(value, 2)


def _doubtful(table: SuiteTable, number: int, column: int) -> bool:
    cells = table.rows[number].scores
    if column == len(table.tasks):
        return any(cell.caveats for cell in cells.values())
    return table.tasks[column] in cells and bool(cells[table.tasks[column]].caveats)


def _name(row: SuiteRow) -> str:
    return printable(" ".join([row.method, settings_text(row.settings)]).rstrip())


def _notes(table: SuiteTable) -> list[str]:
    about = f"suite {table.suite}, base {table.base}, test scores in points, means over seeds; "
    notes = [about + average_text(table.average_of), *table.notes]
    for row in table.rows:
        for task, cell in row.scores.items():
            notes += [f"{MARK} {task}, {row.method}: {why}" for why in cell.caveats]
    return [printable(note) for note in notes]


def _latex(
    table: SuiteTable, heads: Sequence[str], figures: Sequence[Sequence[Figure]], std: bool
) -> str:
    def shown(figure: Figure) -> str:
        if figure.value is None:
            return "--"
        text = f"{figure.value:.2f}"
        if figure.place:
            text = f"{_MARKS[figure.place]}{{{text}}}"
        if std and figure.std is not None:
            text += rf" {{\scriptsize $\pm$ {figure.std:.2f}}}"
        return text + ("$^{?}$" if figure.doubt else "")

    lines = [f"% {note}" for note in _notes(table)]
    lines += ["% needs \\usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * len(heads)}}}"]
    lines += [r"\toprule", " & ".join(["", *map(_tex, heads)]) + r" \\"]
    kind = ""
    for row, found in zip(table.rows, figures, strict=True):
        if row.kind != kind:
            kind = row.kind
            title = rf"\multicolumn{{{len(heads) + 1}}}{{l}}{{\textit{{{KINDS[kind]}}}}} \\"
            lines += [r"\midrule", title]
        lines.append(" & ".join([_tex(_name(row)), *map(shown, found)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _tex(text: str) -> str:
    return "".join(_ESCAPED.get(sign, sign) for sign in text)


def _markdown(
    table: SuiteTable, heads: Sequence[str], figures: Sequence[Sequence[Figure]], std: bool
) -> str:
    def shown(figure: Figure) -> str:
        if figure.value is None:
            return "–"
        text = f"{figure.value:.2f}"
        if figure.place:
            text = {1: f"**{text}**", 2: f"<u>{text}</u>"}[figure.place]
        if std and figure.std is not None:
            text += f" ± {figure.std:.2f}"
        return text + (MARK if figure.doubt else "")

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    lines = [line(["", *heads]), line(["---", *("---:" for _ in heads)])]
    kind = ""
    for row, found in zip(table.rows, figures, strict=True):
        if row.kind != kind:
            kind = row.kind
            lines.append(line([f"*{KINDS[kind]}*", *("" for _ in heads)]))
        lines.append(line([_name(row), *map(shown, found)]))
    return "\n".join([*lines, "", *(f"{note}  " for note in _notes(table))]).rstrip()


def _csv(
    table: SuiteTable, heads: Sequence[str], figures: Sequence[Sequence[Figure]], std: bool
) -> str:
    """Plain numbers: no marks, no notes; with ``std`` a column beside every task's."""
    tasks = [name for head in heads[:-1] for name in ([head, f"{head} std"] if std else [head])]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["method", "kind", *tasks, heads[-1], "seeds"])
    for row, found in zip(table.rows, figures, strict=True):
        cells: list[str] = []
        for figure in found[:-1]:
            cells.append(_number(figure.value))
            cells += [_number(figure.std)] if std else []
        seeds = sorted({len(cell.seeds) for cell in row.scores.values()})
        counted = "-".join(map(str, dict.fromkeys([*seeds[:1], *seeds[-1:]])))
        writer.writerow([_name(row), row.kind, *cells, _number(found[-1].value), counted])
    return stream.getvalue().rstrip("\n")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
