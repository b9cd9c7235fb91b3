"""An error report as tables, for a terminal and for a page; a picture of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import RequestError
from mtl.files import write_bytes
from mtl.report.error_parts import QUANTILES
from mtl.report.heatmap import new_figure, png_of
from mtl.words import printable

if TYPE_CHECKING:
    from mtl.report.error_parts import Calibration
    from mtl.report.errors import Answered, Compared, ErrorReport, Mistake

CLASSES = 20
"""More classes than this are listed by the lowest F1 in a terminal; pages and JSON hold all."""
NUMBERED = 16
"""Up to so many classes the heat map says its numbers."""
TEXT = 240
"""Longest text of a row in a terminal."""


@dataclass(frozen=True)
class Section:
    """A part of a report: a title, a remark, and a table (texts below its rows) or none."""

    title: str
    remark: str = ""
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    below: tuple[tuple[str, ...], ...] = ()


def summary(report: ErrorReport) -> str:
    """One line: what was looked at, and how much of it is wrong."""
    rows = f"{report.n:,} rows"
    wrong = ""
    if report.wrong is not None and report.n:
        wrong = f", {report.wrong:,} wrong ({report.wrong / report.n:.1%})"
    return (
        f"{report.task}, {report.method}, seed {report.seed}, split {report.split}: {rows}{wrong}"
    )


def sections(report: ErrorReport, classes: int | None = None) -> list[Section]:
    """The report as tables.

    Args:
        classes: how many classes are listed at most; None for all.
    """
    found = []
    if report.classes:
        found.append(_classes(report, classes))
    if report.pairs:
        rows = [(p.label, p.predicted, f"{p.n:,}", f"{p.share:.1%}") for p in report.pairs]
        found.append(Section("Most confused", "", ("label", "answered", "rows", "of it"), (*rows,)))
    if report.residuals is not None and report.residuals.ranges:
        found.append(_residuals(report))
    if report.calibration is not None:
        found.append(_calibration(report.calibration))
    far = "Farthest off" if report.kind == "regression" else "Most certain mistakes"
    if report.mistakes:
        found.append(_rows(far, report.mistakes))
    if report.compared is not None:
        found += _compared(report.compared, report.n)
    return found


def _classes(report: ErrorReport, most: int | None) -> Section:
    rows, remark = list(report.classes), ""
    if most is not None and len(rows) > most:
        remark = f"The {most} of {len(rows)} with the lowest F1; --html and --json have all."
        rows = sorted(rows, key=lambda row: (-1.0 if row.f1 is None else row.f1, -row.n))[:most]
    table = [
        (row.label, f"{row.n:,}", f"{row.predicted:,}", *map(_share, _three(row))) for row in rows
    ]
    means = [report.macro.get(name) for name in ("precision", "recall", "f1")]
    total = sum(row.n for row in report.classes)
    table.append(("mean of all", f"{total:,}", "", *map(_share, means)))
    head = ("class", "n", "answered", "precision", "recall", "F1")
    return Section("Classes", remark, head, tuple(table))


def _three(row: Any) -> tuple[float | None, float | None, float | None]:
    return row.precision, row.recall, row.f1


def _residuals(report: ErrorReport) -> Section:
    found = report.residuals
    assert found is not None
    rows = [
        (f"{r.low:.4g} to {r.high:.4g}", f"{r.n:,}", f"{r.bias:+.4g}", f"{r.mae:.4g}")
        for r in found.ranges
    ]
    spread = ", ".join(f"{q:g}: {v:+.4g}" for q, v in zip(QUANTILES, found.quantiles, strict=True))
    remark = (
        f"Answer − label: mean {found.bias:+.4g}, mean absolute {found.mae:.4g} (of the mean label "
        f"as the answer: {found.mean_mae:.4g}), root mean square {found.rmse:.4g}. Quantiles: "
        f"{spread}."
    )
    return Section("Residuals", remark, ("label", "n", "mean", "mean absolute"), tuple(rows))


def _calibration(found: Calibration) -> Section:
    side = "over" if found.confidence > found.right else "under"
    rows = [
        (f"{b.low:.1f} to {b.high:.1f}", f"{b.n:,}", f"{b.confidence:.4f}", f"{b.right:.4f}")
        for b in found.bins
    ]
    remark = (
        f"Expected calibration error {found.ece:.4f}: mean confidence {found.confidence:.4f}, "
        f"right {found.right:.4f} ({side}confident by {abs(found.confidence - found.right):.4f})."
    )
    return Section("Calibration", remark, ("confidence", "n", "mean", "right"), tuple(rows))


def _rows(title: str, listed: Sequence[Mistake], remark: str = "") -> Section:
    off = any(item.difference is not None for item in listed)
    rows = [
        (
            str(item.row),
            _words(item.label),
            _words(item.predicted),
            f"{item.difference:+.4f}" if item.difference is not None else _share(item.confidence),
        )
        for item in listed
    ]
    head = ("row", "label", "answered", "difference" if off else "confidence")
    return Section(title, remark, head, tuple(rows), tuple(item.texts for item in listed))


def _compared(found: Compared, n: int) -> list[Section]:
    p = "–" if found.p is None else f"{found.p:.3g}"
    both = (
        f"{found.same[0]:,} are right in both, {found.same[1]:,} wrong in both"
        if found.test != "sign test"
        else f"{found.same[0]:,} are equally far"
    )
    verbs = ("mends", "breaks") if found.test != "sign test" else ("is closer on", "is farther on")
    remark = (
        f"Of {n:,} rows it {verbs[0]} {found.mended:,} and {verbs[1]} {found.broken:,} "
        f"({found.mended - found.broken:+,}); {both}. {found.test[0].upper()}{found.test[1:]}: "
        f"p = {p}."
    )
    parts = [Section(f"Beside {found.ref}", remark)]
    if found.mends:
        parts.append(_rows("Mended (as the other answers them)", found.mends))
    if found.breaks:
        parts.append(_rows("Broken (as this one answers them)", found.breaks))
    return parts


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "∅"
    return str(value)


def render_errors(report: ErrorReport) -> str:
    """The report for a terminal; strings of strangers cannot control it."""
    parts = [f"{summary(report)}\n{report.ref}"]
    parts += [_plain(section) for section in sections(report, CLASSES)]
    notes = [f"note: {note}" for note in report.notes]
    if notes:
        parts.append("\n".join(printable(note) for note in notes))
    return "\n\n".join(parts)


def _plain(section: Section) -> str:
    from tabulate import tabulate

    lines = [printable(section.title)]
    if section.remark:
        lines.append(printable(section.remark))
    if section.rows:
        rows = [[_cut(cell, 60) for cell in row] for row in section.rows]
        table = tabulate(rows, headers=section.head, disable_numparse=True).split("\n")
        lines += table[:2]
        texts: Iterable[Sequence[str]] = section.below or [()] * len(rows)
        for line, below in zip(table[2:], texts, strict=True):
            lines.append(line)
            lines += [f"    {_cut(text, TEXT)}" for text in below]
    return "\n".join(lines)


def _cut(text: str, most: int) -> str:
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def picture(report: ErrorReport, found: Answered) -> bytes:
    """A PNG: the confusion matrix as a heat map (of a regression answers over labels, of a
    multi-label task F1 by label), and the reliability curve.

    Raises:
        RequestError: matplotlib is not installed, or nothing of the report can be drawn.
    """
    if report.kind == "span_extraction":
        raise RequestError(
            f"{report.ref}: there is nothing to draw of spans; the tables list its mistakes."
        )
    size = min(5.0 + 0.14 * len(report.classes), 40.0)
    figure = new_figure(size + 4.6, max(size, 4.4), 120)
    sides = figure.add_gridspec(1, 2, width_ratios=(size, 4.0))
    left: Any = figure.add_subplot(sides[0])
    if report.confusion is not None:
        _heat(figure, left, report)
    elif report.kind == "regression":
        _scatter(left, found)
    else:
        _bars(left, report)
    right: Any = figure.add_subplot(sides[1])
    if report.calibration is not None:
        _reliability(right, report.calibration)
    elif report.kind == "regression":
        off = np.asarray(found.given.prediction, float) - np.asarray(found.given.label, float)
        right.hist(off[np.isfinite(off)], bins=40, color="#4878a8")
        right.set(xlabel="answer − label", ylabel="rows")
    else:
        right.set_axis_off()
    figure.suptitle(_dollars(summary(report)), fontsize=9)
    return png_of(figure)


def _dollars(text: str) -> str:
    """matplotlib reads formulas between dollars; a stranger's label is none."""
    return printable(text).replace("$", r"\$")


def _heat(figure: Any, axes: Any, report: ErrorReport) -> None:
    assert report.confusion is not None
    matrix = np.asarray(report.confusion.matrix, float)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = [_dollars(_cut(name, 30)) for name in report.confusion.labels]
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    small = 8 if len(names) <= NUMBERED else max(3.0, 7.5 - 0.03 * len(names))
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=small)
    axes.set_yticks(range(len(names)), names, fontsize=small)
    axes.set(xlabel="answered", ylabel="label")
    if len(names) <= NUMBERED:
        for (row, column), value in np.ndenumerate(matrix):
            colour = "white" if share[row, column] > 0.6 else "black"
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=7
            )
    figure.colorbar(image, ax=axes, shrink=0.7).set_label("share of the label's rows", fontsize=8)


def _scatter(axes: Any, found: Answered) -> None:
    label = np.asarray(found.given.label, float).reshape(-1)
    answer = np.asarray(found.given.prediction, float).reshape(-1)
    good = np.isfinite(label) & np.isfinite(answer)
    axes.plot(label[good], answer[good], ".", alpha=0.35, markersize=4, color="#4878a8")
    if good.any():
        ends = [label[good].min(), label[good].max()]
        axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.set(xlabel="label", ylabel="answer")


def _bars(axes: Any, report: ErrorReport) -> None:
    names = [_dollars(_cut(row.label, 30)) for row in report.classes]
    axes.barh(range(len(names)), [row.f1 or 0.0 for row in report.classes], color="#4878a8")
    axes.set_yticks(range(len(names)), names, fontsize=max(3.0, 8 - 0.03 * len(names)))
    axes.invert_yaxis()
    axes.set(xlabel="F1", xlim=(0, 1))


def _reliability(axes: Any, found: Calibration) -> None:
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axes.plot([b.confidence for b in found.bins], [b.right for b in found.bins], "o-")
    most = max(b.n for b in found.bins)
    axes.bar(
        [(b.low + b.high) / 2 for b in found.bins],
        [0.25 * b.n / most for b in found.bins],
        width=0.09,
        color="#bbbbbb",
        zorder=0,
    )
    axes.set(xlabel="confidence (bars: rows)", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    axes.set_aspect("equal")
    axes.set_title(f"expected calibration error {found.ece:.4f}", fontsize=8)


def draw_errors(report: ErrorReport, found: Answered, path: Path) -> None:
    """:func:`picture` into a file, atomically. Raises as it does."""
    write_bytes(path, picture(report, found))
