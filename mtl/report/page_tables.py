"""The tables of a report's page: results, a suite's averages, wins and losses, settings, runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl.report.beside import baselines_told
from mtl.report.html import listed, text
from mtl.report.page_figures import labelled, own_settings
from mtl.report.stats import Interval
from mtl.report.suite_text import KINDS, average_text
from mtl.report.tables_text import name_of
from mtl.words import counted, shown_command
from mtl.zoo.settings import settings_text

if TYPE_CHECKING:
    from mtl.report.suite import SuiteTable
    from mtl.report.tables import Row
    from mtl.zoo import Entry

FILTERED = 12
"""Rows of a table from which on words can be looked for in it."""
COMMANDS = 200
"""Different commands that a page lists."""
WON, LOST, OPEN, ALONE = "won", "lost", "open", "one seed"


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its markup, what it is sorted by (None: nothing there), its class."""

    markup: str
    by: float | None = None
    style: str = ""
    plain: bool = False

    def html(self) -> str:
        by = "" if self.plain else f' data-v="{"" if self.by is None else f"{self.by:.10g}"}"'
        style = f' class="{self.style}"' if self.style else ""
        return f"<td{by}{style}>{self.markup}</td>"


def word(value: object, style: str = "") -> Cell:
    """A cell of text, sorted as such."""
    return Cell(text(value), style=style, plain=True)


def number(value: float | None, form: str = ",.0f") -> Cell:
    """A cell with a number."""
    return Cell("" if value is None else format(value, form), value, "n")


def mean(value: Interval | None, *, sign: bool = False, caveats: Sequence[str] = ()) -> Cell:
    """A mean ± half its 95 % interval, sorted by the mean; of a gain also what it says."""
    if value is None:
        return Cell("", None, "n")
    form = "+.4f" if sign else ".4f"
    half = "" if value.half is None or value.caveat else f" <small>± {value.half:.4f}</small>"
    doubt = f' <abbr title="{text("; ".join(caveats))}">(!)</abbr>' if caveats else ""
    said = f"{SIGNS[told(value)]} " if sign else ""
    style = f"n {STYLES[told(value)]}" if sign else "n"
    return Cell(f"{said}{format(value.mean, form)}{doubt}{half}", value.mean, style)


SIGNS = {WON: "▲", LOST: "▼", OPEN: "○", ALONE: "·"}
STYLES = {WON: "good", LOST: "bad", OPEN: "open", ALONE: "open"}


def told(gain: Interval) -> str:
    """Whether a gain is won or lost (its 95 % interval leaves out zero), open, or of one seed."""
    if gain.low is None or gain.high is None:
        return ALONE
    if gain.caveat:  # seeds that are all alike: no interval
        return OPEN
    return WON if gain.low > 0 else LOST if gain.high < 0 else OPEN


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[Cell]], *, sortable: bool = True
) -> str:
    """A table whose first column says what each row is."""
    found = list(rows)
    numbers = [cell.style.partition(" ")[0] == "n" for cell in found[0]] if found else []
    head = "".join(
        f'<th scope="col"{" class=n" * right}>{text(name)}</th>'
        for name, right in zip(heads, numbers or [False] * len(heads), strict=True)
    )
    body = "\n".join(f"<tr>{''.join(cell.html() for cell in row)}</tr>" for row in found)
    kinds = ["sortable"] * sortable + ["filtered"] * (sortable and len(found) > FILTERED)
    style = f' class="{" ".join(kinds)}"' if kinds else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(caption)}">'
        f"<table{style}><caption>{text(caption)}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>"
    )


def results_table(rows: Sequence[Row], verdicts: Mapping[int, Cell]) -> str:
    """Every row of the report.

    Args:
        verdicts: number of a row → its verdict against a published table; empty for no column.
    """
    several = len({row.base for row in rows}) > 1
    controlled = any(row.controls for row in rows)
    apart = any(own_settings(row) for row in rows)
    gained = any(row.gain for row in rows)
    heads = ["task", *(["base"] if several else []), "method", *(["settings"] if apart else [])]
    heads += ["test, mean ± 95 %", *(["published"] if verdicts else [])]
    heads += ["gain over own adapter"] if gained else []
    heads += [*(["gain over control"] if controlled else [])]
    heads += [*(["gain over test examples"] if gained else []), "seeds"]
    heads += ["dev", "trained parameters", "training rows", "test rows", "state chosen by"]
    lines = []
    for place, row in enumerate(rows):
        low, high = row.gain_examples or (None, None)
        span = "" if low is None or high is None or low == high else f"[{low:+.4f}, {high:+.4f}]"
        lines.append(
            [
                Cell(f"{text(row.task)}<br><small>{text(row.metric)}</small>", plain=True),
                *([word(row.base)] if several else []),
                word(name_of(row), "nw"),
                *([word(own_settings(row), "small")] if apart else []),
                mean(row.test, caveats=row.caveats),
                *([verdicts.get(place, word(""))] if verdicts else []),
                *([mean(row.gain, sign=True, caveats=row.gain_caveats)] if gained else []),
                *([_controls(row)] if controlled else []),
                *([Cell(span, low, "n small")] if gained else []),
                number(len(row.seeds)),
                number(row.dev.mean if row.dev else None, ".4f"),
                number(row.parameters),
                number(row.train),
                number(row.examples),
                word(row.selected_by or "not recorded", "nw"),
            ]
        )
    return table(f"Results, {counted(len(rows), 'row')}", heads, lines)


def _controls(row: Row) -> Cell:
    if not row.controls:
        return Cell("", None, "n")
    parts = [f"{text(how)} {mean(gain, sign=True).markup}" for how, gain in row.controls.items()]
    first = next(iter(row.controls.values()))
    style = STYLES[told(first)] if len(row.controls) == 1 else ""
    return Cell("<br>".join(parts), first.mean, f"n {style}".rstrip())


def suite_table(found: SuiteTable) -> str:
    """Methods by tasks, with the average."""
    names = [task.rpartition("/")[2] for task in found.tasks]
    heads = ["method", "kind", "average", *names, "trained / task", "stored / task"]
    lines = []
    for row in found.rows:
        cells = [row.scores.get(task) for task in found.tasks]
        lines.append(
            [
                word(f"{row.method} {settings_text(row.settings)}".rstrip()),
                word(KINDS[row.kind]),
                mean(row.average),
                *(number(None if cell is None else cell.mean, ".4f") for cell in cells),
                number(row.trainable),
                number(row.stored),
            ]
        )
    title = f"{found.suite}, {found.base}: {average_text(found.average_of)}"
    return table(title, heads, lines) + (listed(map(text, found.notes)) if found.notes else "")


def wins(rows: Sequence[Row]) -> str:
    """Of every method in how many rows its gain is above zero, below, or neither."""
    parts = []
    for title, gains in (
        ("own adapter", [(name_of(r), r.gain) for r in rows if r.gain is not None]),
        ("control", [(name_of(r), gain) for r in rows for gain in r.controls.values()]),
    ):
        by: dict[str, list[Interval]] = {}
        for name, gain in gains:
            by.setdefault(name, []).append(gain)
        lines = []
        for name, found in by.items():
            count = Counter(map(told, found))
            average = sum(gain.mean for gain in found) / len(found)
            lines.append(
                [
                    word(name),
                    Cell(_bar(count, len(found)), float(count[WON] - count[LOST])),
                    *(number(count[what]) for what in (WON, LOST, OPEN, ALONE)),
                    number(average, "+.4f"),
                ]
            )
        if lines:
            heads = ["method", "", "▲ won", "▼ lost", "○ open", "· one seed", "mean gain"]
            parts.append(table(f"Against the {title}", heads, lines))
    return "".join(parts) or "<p>There is no composition beside an own adapter of its seed.</p>"


def _bar(count: Mapping[str, int], total: int) -> str:
    """Shares of a whole as a bar; its numbers stand beside it."""
    parts, at = [], 0.0
    for what in (WON, OPEN, ALONE, LOST):
        width = 100 * count.get(what, 0) / total
        place = f'x="{at:.1f}" y="1" width="{width:.1f}" height="10"'
        parts.append(f'<rect class="{STYLES[what]}-fill" {place}/>')
        at += width
    return f'<svg class="bar" aria-hidden="true" viewBox="0 0 100 12">{"".join(parts)}</svg>'


def settings(rows: Sequence[Row]) -> str:
    """What is not the same in rows of one task and method, setting by setting."""
    by: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        for key, value in row.settings.items():
            values = by.setdefault((row.task, name_of(row)), {}).setdefault(key, [])
            if str(value) not in values:
                values.append(str(value))
    lines = [
        [word(task), word(name), word(key), word(" · ".join(values), "small")]
        for (task, name), keys in by.items()
        for key, values in keys.items()
    ]
    if not lines:
        return "<p>None: rows of one task and method have the same settings.</p>"
    return table("Settings that differ", ["task", "method", "setting", "values"], lines)


def baselines(rows: Sequence[Row]) -> str:
    """What simple means reach on the same test rows."""
    told = baselines_told(rows)
    if not told:
        return "<p>None were recorded with these runs.</p>"
    several = any(apart for _, _, apart, _ in told)
    lines = [
        [word(task), number(train), *([word(apart)] if several else []), word(reached)]
        for task, train, apart, reached in told
    ]
    head = ["task", "training rows", *(["of"] if several else []), "reached"]
    return table("Simple baselines on test", head, lines)


def remarks(rows: Sequence[Row]) -> str:
    """What is to be said of rows: doubtful scores, constant answers, choices made on dev."""
    said: dict[str, None] = {}
    for row in rows:
        where = f"{row.task}, {labelled(row)}"
        for why in dict.fromkeys([*row.caveats, *row.gain_caveats, *row.findings]):
            said[f"{where}: {why}"] = None
        if row.picked:
            said[f"{where}: the best on dev of {row.picked} variants"] = None
    return listed(map(text, said)) if said else "<p>None.</p>"


_FACTS = ("device", "precision", "threads", "processes")


def environment(entries: Sequence[Entry]) -> str:
    """Libraries and machines behind the runs; more than one value of something is marked."""
    found: dict[str, Counter[str]] = {}
    for entry in entries:
        manifest = entry.manifest
        facts = {name: manifest.training.get(name) for name in _FACTS}
        for name, value in {**facts, **manifest.versions}.items():
            if value is not None:
                found.setdefault(str(name), Counter())[str(value)] += 1
    lines = []
    for name, values in found.items():
        several = len(values) > 1 or sum(values.values()) < len(entries)
        listed_ = ", ".join(f"{value} ({n:,})" for value, n in values.most_common(20))
        lines.append([word(name), word(listed_ if several else next(iter(values)))])
        lines[-1].append(word("not the same in all" if several else ""))
    return table("Environment", ["what", "value (runs)", ""], lines, sortable=False)


def commands(entries: Sequence[Entry]) -> str:
    """The commands that made the runs, as their entries record them, oldest first.

    A command line that is none of ours, or holds something for a shell, is counted and not shown.
    """
    found: Counter[str] = Counter()
    strange = 0
    for entry in sorted(entries, key=lambda entry: entry.manifest.created):
        line = shown_command(entry.manifest.command)
        if line is None:
            strange += 1
        else:
            found[line] += 1
    lines = [f"<code>{text(line)}</code> ({counted(n, 'run')})" for line, n in found.items()]
    parts = [f'<div class="tall">{listed(lines[:COMMANDS], "ol")}</div>'] if lines else []
    if len(lines) > COMMANDS:
        parts.append(f"<p>and {counted(len(lines) - COMMANDS, 'command')} more</p>")
    if strange:
        parts.append(
            f"<p>{counted(strange, 'run')} with a command line that is none of ours, or not safe "
            "to paste: not shown.</p>"
        )
    return "".join(parts)
