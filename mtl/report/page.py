"""A report as one HTML page: results, what follows from them, and what made them.

One file without a request: drawings are inline SVG, sorting is a little script, and the page says
the same without it. Whatever strings entries hold are only text (:mod:`mtl.report.html`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.files import write_text
from mtl.report import page_figures as figures
from mtl.report import page_sources as sources
from mtl.report import page_tables as tables
from mtl.report.html import document, listed, text
from mtl.report.page_against import against, verdicts_of
from mtl.report.page_searches import all_searches
from mtl.report.page_sources import Transfer
from mtl.report.tables import base_names
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.report.against import Comparison
    from mtl.report.dev_curves import Line
    from mtl.report.searches import Used
    from mtl.report.suite import SuiteTable
    from mtl.report.tables import Row
    from mtl.zoo import Entry

_HERE = Path(__file__)


@dataclass(frozen=True)
class Shown:
    """What a page shows.

    Attributes:
        title: of the page.
        command: the command line that wrote it.
        entries: all that were asked for, joint ones included.
        rows: their results with the runs behind each (:func:`mtl.report.tables.rows_and_runs`).
        suites: tables of methods by tasks.
        curves: (task, metric) → lines of dev over steps; of the runs ``lost`` no events are here.
        transfer: what each source does alone.
        against: a comparison with a published table.
        searches: of the settings that runs were trained with.
        notes: what else is to be said of the entries.
    """

    title: str
    command: str
    entries: Sequence[Entry]
    rows: Sequence[tuple[Row, Sequence[Entry]]]
    suites: Sequence[SuiteTable] = ()
    curves: Mapping[tuple[str, str], Sequence[Line]] = field(default_factory=dict)
    lost: Sequence[str] = ()
    transfer: Transfer = field(default_factory=Transfer)
    against: Comparison | None = None
    searches: Sequence[Used] = ()
    notes: Sequence[str] = ()


def write_page(shown: Shown, path: Path) -> None:
    """Write the page, atomically.

    Raises:
        RunError: the system refuses.
    """
    write_text(path, page(shown))


def page(shown: Shown) -> str:
    """The page as text."""
    parts = _sections(shown)
    links = listed(f'<a href="#{name}">{text(title)}</a>' for name, title, _, _ in parts)
    body = [f"<header><h1>{text(shown.title)}</h1>{_summary(shown)}</header>"]
    body.append(f'<nav aria-label="sections">{links}</nav>\n<main>')
    for name, title, said, markup in parts:
        body.append(
            f'<section aria-labelledby="{name}"><h2 id="{name}">{text(title)}</h2>'
            f'<p class="key">{text(said)}</p>\n{markup}</section>'
        )
    body.append("</main>")
    style = _HERE.with_name("page.css").read_text(encoding="utf-8")
    script = _HERE.with_name("page.js").read_text(encoding="utf-8")
    return document(shown.title, "\n".join(body), style=style, script=script)


def _summary(shown: Shown) -> str:
    tasks = {row.task for row, _ in shown.rows}
    tasks |= {task for table in shown.suites for task in table.tasks}
    seeds = {entry.manifest.seed for entry in shown.entries}
    made = sorted(entry.manifest.created[:10] for entry in shown.entries)
    when = "" if not made else f", made {made[0]}" + (f" to {made[-1]}" * (made[0] != made[-1]))
    said = (
        f"{counted(len(shown.entries), 'run')} of {counted(len(tasks), 'task')} and "
        f"{counted(len(seeds), 'seed')} in {counted(len(shown.rows), 'row')}{when}."
    )
    bases = base_names(shown.entries).values()
    base = f"<p>Base: {text(', '.join(sorted(bases)))}.</p>"
    notes = listed(map(text, shown.notes)) if shown.notes else ""
    command = f"This page: <code>{text(shown.command)}</code>"
    return f"<p>{text(said)}</p>{base}<p>{command}</p>{notes}"


def _sections(shown: Shown) -> list[tuple[str, str, str, str]]:
    """Id, title, a sentence on how to read it, and markup of every section."""
    rows = [row for row, _ in shown.rows]
    verdicts = {} if shown.against is None else verdicts_of(shown.against, shown.rows)
    found = [("results", "Results", RESULTS, tables.results_table(rows, verdicts))] if rows else []
    if shown.suites:
        markup = "".join(map(tables.suite_table, shown.suites))
        found.append(("suites", "Methods on the whole suite", SUITES, markup))
    if shown.against is not None:
        found.append(("against", "Beside published figures", AGAINST, against(shown.against)))
    costs = figures.all_costs(rows, shown.suites)
    searched = all_searches(shown.searches)
    found += [
        ("wins", "Wins and losses", WINS, tables.wins(rows)),
        ("seeds", "Every seed", SEEDS, figures.all_dots(rows)),
        ("costs", "Results over trained parameters", COSTS, costs),
        ("curves", "Training", CURVES, _curves(shown)),
        ("shares", "Shares of the sources", SHARES, sources.all_shares(shown.rows)),
        ("transfer", "Transfer from single sources", TRANSFER, sources.transfer(shown.transfer)),
        ("settings", "Settings that differ", SETTINGS, tables.settings(rows)),
        *(
            [("searches", "Settings that were searched for", SEARCHES, searched)]
            if searched
            else []
        ),
        ("baselines", "Simple baselines", BASELINES, tables.baselines(rows)),
        ("remarks", "Remarks", REMARKS, tables.remarks(rows)),
        ("environment", "Environment", ENVIRONMENT, tables.environment(shown.entries)),
        ("commands", "Commands", COMMANDS, tables.commands(shown.entries)),
    ]
    return found


def _curves(shown: Shown) -> str:
    drawn = figures.all_curves(shown.curves) if shown.curves else ""
    if shown.lost:
        lost = counted(len(shown.lost), "run")
        drawn += f"<p>Not at hand: the events of {lost}, which are where those were trained.</p>"
    return drawn or "<p>No runs to draw.</p>"


RESULTS = (
    "One row per task, method and settings. Mean ± half of the 95 % interval over seeds "
    "(Student's t). An own adapter is trained on the task alone; a composition, method (K=n), "
    "uses n source adapters. Gains are paired by seed: ▲ the interval is above zero, ▼ below, ○ "
    "neither (or all seeds are alike), · one seed, no interval. Gain over test examples: 95 % "
    "of a paired bootstrap over the test rows. Dev: the same metric on the rows that choices "
    "were made on. (!) marks a score that says less than it seems. A click on a heading sorts."
)
SUITES = (
    "Test score per task, mean over seeds, and their average ± half of the 95 % interval; "
    "trained and stored numbers per task, sources counted once."
)
AGAINST = (
    "Reproduced: our difference is within ±δ, which two publications of one method differ by; "
    "better, worse: beyond it, and not by chance; unresolved: too few seeds; no δ: nobody "
    "published the task twice, so there is a difference and no verdict."
)
WINS = (
    "In how many rows (a task, settings) a composition is above what it is compared with. Won "
    "and lost: the 95 % interval of the gain leaves out zero; open: it does not (not corrected "
    "for how many rows there are). The bar: won, open, lost."
)
SEEDS = (
    "Each mark is a run (a seed): circle own adapter, square composition, triangle control. The "
    "line is the mean, the bar its 95 % interval. Own adapters first, then the highest means."
)
COSTS = (
    "Up is better, left is cheaper. Ringed, numbered and joined: no other is as good with as "
    "few trained parameters. Circle own adapter, square composition, diamond joint model, "
    "triangle control (never ringed). What a composition trains does not count its sources. "
    "Where a task has several drawings, they were trained on different rows."
)
CURVES = (
    "The metric on dev (the rows that choices are made on) while training; thick: mean over "
    "seeds; a dot: the state that was kept."
)
SHARES = (
    "How much of what a composition mixes comes from each source, per layer; columns add up to "
    "1. Blue above an even share, orange below."
)
TRANSFER = (
    "Test metric with one source alone minus the own adapter's. Blue helps, orange hurts; * the "
    "95 % interval leaves out zero; hatched: not measured."
)
SETTINGS = "In what rows of the same task and method are not the same."
SEARCHES = (
    "Trials on dev alone, with seeds of their own: each is a line through the settings that it "
    "had, to its score at the right. The best of many flatters itself on dev; the results above "
    "are of other seeds, on test."
)
BASELINES = (
    "On the same test rows: the commonest answer, a linear model over TF-IDF, and one over the "
    "frozen encoder."
)
REMARKS = "What is to be known of single rows."
ENVIRONMENT = "Libraries and machines as the runs recorded them."
COMMANDS = "As the runs recorded them, oldest first; file names without their folders."
