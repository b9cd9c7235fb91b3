"""The rows of a report as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl.fitting import fitted
from mtl.report.beside import baseline_lines
from mtl.report.stats import interval_text
from mtl.zoo.caveats import MARK, footnotes
from mtl.zoo.settings import settings_text

if TYPE_CHECKING:
    from mtl.report.tables import Row

CONTROLLED = (
    "\ncontrol: the same with twins in place of the other tasks' sources, which know nothing "
    "(mtl.compose --control); gain over control: paired by seed."
)


def render(rows: Sequence[Row]) -> str:
    """The rows as a plain text table; with a column for the base where there are several."""
    several = len({row.base for row in rows}) > 1
    controlled = any(row.controls for row in rows)
    table = [
        [
            row.task,
            *([row.base] if several else []),
            _label(row),
            f"{row.parameters:,}",
            row.metric,
            f"{row.dev.mean:.4f}" if row.dev else "–",
            interval_text(row.test, mark=_mark(row.caveats)) if row.test else "–",
            (interval_text(row.gain, sign=True, mark=_mark(row.gain_caveats)) if row.gain else ""),
            _examples_text(row.gain_examples),
            *([_controls_text(row)] if controlled else []),
            len(row.seeds),
            row.examples or "",
            row.selected_by or "–",
        ]
        for row in rows
    ]
    headers = [
        "task",
        *(["base"] if several else []),
        "method",
        "trained",
        "metric",
        "dev",
        "test, mean ± 95 %",
        "gain over own adapter ± 95 %",
        "over test examples",
        *(["gain over control ± 95 %"] if controlled else []),
        "seeds",
        "test n",
        "selected by",
    ]
    text = fitted(table, headers, keys=3 if several else 2)
    doubts = footnotes(
        (f"{row.metric} of {row.task}, {row.method}", why)
        for row in rows
        for why in (*row.caveats, *row.gain_caveats)
    )
    picked = "".join(
        f"\nnote: {row.task}, {row.method}: the best on dev of {row.picked} variants (--pick)"
        for row in rows
        if row.picked
    )
    simple = baseline_lines(rows)
    said = "".join(
        f"\nnote: {row.task}, {_label(row)}: {text}" for row in rows for text in row.findings
    )
    return (
        f"{text}{doubts}{simple}{said}\n\ndev: mean over seeds; mean ± 95 %: "
        "Student-t over seeds; gain: paired "
        "by seed; over test examples: paired bootstrap, 95 %; –: one seed, or seeds or examples "
        f"that are all alike.{CONTROLLED if controlled else ''}{picked}"
    )


def _mark(caveats: Sequence[str]) -> str:
    return MARK if caveats else ""


def _examples_text(found: tuple[float, float] | None) -> str:
    if found is None:
        return ""
    low, high = found
    return "–" if low == high else f"[{low:+.4f}, {high:+.4f}]"


def _controls_text(row: Row) -> str:
    found = row.controls.items()
    return "; ".join(f"{how} {interval_text(gain, sign=True)}" for how, gain in found)


def name_of(row: Row) -> str:
    """What a row is of, see :func:`method_name`."""
    return method_name(row.method, row.sources, row.control)


def method_name(method: str, sources: int, control: str = "") -> str:
    """``pfeiffer``, ``scalearn (K=6)``, ``control (permuted): scalearn (K=6)``."""
    label = f"{method} (K={sources})" if sources else method
    return f"control ({control}): {label}" if control else label


def _label(row: Row) -> str:
    return f"{name_of(row)} {settings_text(row.settings)}".rstrip()
