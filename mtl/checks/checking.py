"""``mtl.tasks check``: what stands in a task's data, and what a careful person would look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.backbone.encoder_fit import misfits
from mtl.checks.diagnose import diagnose
from mtl.checks.findings import SHOWN, Example, Finding, share, short
from mtl.checks.label_remarks import Seen, label_remarks, number_remarks
from mtl.checks.leaks import leaks
from mtl.checks.oddities import lost_rows, oddities
from mtl.checks.order import order_remarks
from mtl.data.encoded import encode
from mtl.data.raw_rows import RawRows
from mtl.data.task_data import load_data
from mtl.errors import MtlError
from mtl.tasks.suites import default_protocol

if TYPE_CHECKING:
    from mtl.data.task_data import Split, TaskData
    from mtl.tasks.spec import TaskSpec

IMBALANCED = 0.9
"""Share of the largest class from which accuracy says little."""
FEW = 8
"""Training rows of a class below which it can hardly be learnt."""
CUT = 0.1
"""Share of truncated rows from which ``max_length`` is worth a thought."""


@dataclass
class TaskReport:
    """What was found about one task.

    Attributes:
        task: its id, or the name that was asked for.
        splits: per split: rows, empty, duplicates, labels; with a tokenizer longest and truncated.
        problems, remarks: the findings by level.
    """

    task: str
    findings: list[Finding] = field(default_factory=list)
    splits: list[dict[str, Any]] = field(default_factory=list)
    protocol: str = ""
    fingerprint: str = ""
    data: TaskData | None = field(default=None, repr=False)
    rows: RawRows | None = field(default=None, repr=False)

    def of_level(self, level: str) -> list[Finding]:
        """The findings of one level."""
        return [finding for finding in self.findings if finding.level == level]

    def to_dict(self) -> dict[str, Any]:
        """As JSON; problems and remarks are sentences, findings hold everything."""
        return {
            "task": self.task,
            "protocol": self.protocol,
            "fingerprint": self.fingerprint,
            "splits": self.splits,
            "problems": [finding.text for finding in self.of_level("problem")],
            "remarks": [finding.text for finding in self.of_level("remark")],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def check_task(
    spec: TaskSpec,
    *,
    data_root: str | Path | None = None,
    protocol: str | None = None,
    tokenizer: Any = None,
    config: Any = None,
    near: float = 0.8,
) -> TaskReport:
    """Read a task's data and report what is in them.

    Args:
        protocol: how they are split, None for the task's default.
        tokenizer: counts tokens and what ``max_length`` cuts, None not to.
        config: of the encoder; whether it can read what ``tokenizer`` makes, None not to look.
        near: Jaccard similarity from which texts are near duplicates, 0 to look for exact ones
            only.
    """
    report = TaskReport(spec.id, protocol=protocol or default_protocol(spec))
    try:
        report.rows = RawRows(spec, data_root)
        report.data = load_data(
            spec, rows=report.rows, protocol=report.protocol, check_classes=False
        )
    except MtlError as error:
        if report.rows:
            report.findings += [*diagnose(report.rows), *lost_rows(report.rows)]
        if all(finding.level != "problem" for finding in report.findings):
            report.findings.append(Finding("unusable", "problem", str(error).rstrip(".")))
        return report
    data = report.data
    report.fingerprint = data.fingerprint
    report.findings += [Finding("note", "remark", note) for note in data.notes]
    for name, split in data.splits.items():
        row = {"split": name, "rows": len(split)}
        for part in (_texts, _labels):
            counts, found = part(report, name, split)
            row |= counts
            report.findings += found
        if tokenizer is not None:
            counts, found = _lengths(data, name, tokenizer, config)
            row |= counts
            report.findings += found
        report.splits.append(row)
    report.findings += _label_names(report)
    report.findings += [*lost_rows(report.rows), *oddities(data, report.rows)]
    report.findings += leaks(data, report.rows, near)
    report.findings += order_remarks(data, report.rows)
    return report


def _texts(report: TaskReport, name: str, split: Split) -> tuple[dict[str, Any], list[Finding]]:
    """Empty texts, and inputs that stand twice (with another label, even)."""
    inputs = list(zip(*split.texts, strict=True))
    blank = [row for row, texts in enumerate(inputs) if not any(text.strip() for text in texts)]
    partly = [row for row, texts in enumerate(inputs) if not all(text.strip() for text in texts)]
    partly = sorted({*partly} - {*blank})
    places: dict[tuple[str, ...], list[int]] = {}
    for row, texts in enumerate(inputs):
        places.setdefault(texts, []).append(row)
    again = [rows for rows in places.values() if len(rows) > 1]
    torn = [rows for rows in again if len(np.unique(split.labels[rows], axis=0)) > 1]
    found = []
    for check, level, rows, what in (
        ("empty-text", "problem", blank, "have no text at all"),
        ("empty-text", "remark", partly, "have one empty text"),
    ):
        if rows:
            examples = [Example(_place(report, split, row)) for row in rows[:SHOWN]]
            text = f"{name}: {share(len(rows), len(split))} {what}"
            found.append(Finding(check, level, text, name, len(rows), len(split), examples))
    extra = len(inputs) - len(places)
    for check, groups, count, what in (
        ("duplicates", again, extra, "repeat an earlier row"),
        ("conflicting-labels", torn, sum(map(len, torn)), "have equal texts and other labels"),
    ):
        if count:
            examples = [
                Example(
                    _place(report, split, rows[0]),
                    short(inputs[rows[0]]),
                    _place(report, split, rows[1]),
                )
                for rows in groups[:SHOWN]
            ]
            text = f"{name}: {share(count, len(split))} {what}"
            found.append(Finding(check, "remark", text, name, count, len(split), examples))
    return {"empty": len(blank) + len(partly), "duplicates": extra}, found


def _held_out(data: TaskData, absent: list[str]) -> list[str]:
    """Labels that only rows have that our own hold-out took from those of train."""
    source = data.splits["train"].source
    taken = [s for name, s in data.splits.items() if name != "train" and s.source == source]
    held = []
    for name in absent:
        place = data.spec.labels.index(name)
        columns = [s.labels[:, place] if s.labels.ndim == 2 else s.labels == place for s in taken]
        if any(column.any() for column in columns):
            held.append(name)
    return held


def _labels(report: TaskReport, name: str, split: Split) -> tuple[dict[str, Any], list[Finding]]:
    """How often each label stands there; labels that are absent, rare, or nearly all."""
    data = report.data
    assert data is not None
    spec, labels, rows = data.spec, split.labels, len(split)
    if spec.kind == "span_extraction":
        return {"labels": {"answers": rows}}, []
    if spec.kind == "regression":
        low, high = float(labels.min()), float(labels.max())
        found = []
        if low == high:
            text = f"{name}: all labels are {low}"
            found.append(Finding("constant-label", "remark", text, name, rows, rows))
        return {"labels": {"min": low, "mean": float(labels.mean()), "max": high}}, found
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=len(spec.labels))
    else:
        counts = labels.sum(axis=0).astype(np.int64)
    by_label = dict(zip(spec.labels, counts.tolist(), strict=True))
    found = []
    absent = [label for label, count in by_label.items() if not count]
    listed = ", ".join(map(repr, absent))
    present = [label for label, count in by_label.items() if count]
    if name == "train" and spec.kind == "classification" and len(present) == 1:
        text = (
            f"all {rows} training rows have the label {present[0]!r}; a classifier needs at least "
            "two classes"
        )
        found.append(Finding("one-class", "problem", text, name, rows, rows))
    elif absent and name == "train":
        lost = _held_out(data, absent)
        gone = [label for label in absent if label not in lost]
        for labelled, level, why in (
            (gone, "problem", "add rows, or take the label out of the list"),
            (
                lost,
                "remark",
                "all its rows were held out: add some, or give files for dev and test",
            ),
        ):
            if labelled:
                text = f"no training row has the label {', '.join(map(repr, labelled))}; {why}"
                found.append(Finding("absent-label", level, text, name, 0, rows))
    elif absent:
        text = f"{name}: no row has the label {listed}"
        found.append(Finding("absent-label", "remark", text, name, 0, rows))
    if name == "train" and len(present) > 1:
        found += _imbalance(by_label, rows, single=labels.ndim == 1)
    return {"labels": by_label}, found


def _label_names(report: TaskReport) -> Iterator[Finding]:
    """Remarks about how labels are written, over all splits together."""
    data, rows = report.data, report.rows
    assert data is not None
    assert rows is not None
    if data.spec.kind == "regression":
        cells: dict[str, Seen] = {}
        for source in dict.fromkeys(split.source for split in data.splits.values()):
            values = rows.table(source).column(data.spec.label_column).to_pylist()
            for row, value in enumerate(values):
                if isinstance(value, str):
                    cell = cells.setdefault(value.strip(), Seen())
                    cell.add(1, [rows.place(source, row)] if cell.count < SHOWN else [])
        yield from number_remarks(cells)
    if not data.spec.labels or data.spec.kind not in {"classification", "multilabel"}:
        return
    seen: dict[str, Seen] = {}
    for split in data.splits.values():
        for place, name in enumerate(data.spec.labels):
            has = split.labels == place if split.labels.ndim == 1 else split.labels[:, place] > 0
            held = np.flatnonzero(has)
            places = [_place(report, split, int(row)) for row in held[:SHOWN]]
            seen.setdefault(name, Seen()).add(len(held), places)
    yield from label_remarks(seen, data.spec.kind)


def _imbalance(by_label: Mapping[str, int], rows: int, *, single: bool) -> Iterator[Finding]:
    label, most = max(by_label.items(), key=lambda item: item[1])
    if single and most / rows >= IMBALANCED and len(by_label) > 1:
        text = (
            f"train: {share(most, rows)} have the label {label!r}; saying it always has that "
            "accuracy, so look at macro_f1 or matthews"
        )
        yield Finding("imbalance", "remark", text, "train", most, rows)
    rare = {name: count for name, count in by_label.items() if 0 < count < FEW}
    if rare and rows > FEW * len(by_label):
        listed = ", ".join(f"{name!r} {count}" for name, count in list(rare.items())[:6])
        text = f"train: {len(rare)} labels have fewer than {FEW} rows: {listed}"
        yield Finding("rare-label", "remark", text, "train", sum(rare.values()), rows)


def _lengths(
    data: TaskData, name: str, tokenizer: Any, config: Any
) -> tuple[dict[str, Any], list[Finding]]:
    encoded = encode(data, name, tokenizer)
    rows = len(encoded)
    wrong = [
        Finding(item.check, item.level, item.text, name, rows, rows)
        for item in misfits(encoded, tokenizer, config, len(data.splits[name].texts))
        if item.level == "problem" or name == "train"
    ] if config is not None else []  # fmt: skip
    cut = encoded.truncated / max(len(encoded), 1)
    counts = {"longest": int(encoded.lengths.max()), "truncated": cut}
    if cut < CUT or name != "train":
        return counts, wrong
    text = (
        f"{name}: {encoded.truncated:,} of {len(encoded):,} encodings ({cut:.1%}) are cut at "
        f"max_length {data.spec.max_length}; a larger one costs time and may gain accuracy"
    )
    cuts = Finding("truncation", "remark", text, name, encoded.truncated, len(encoded))
    return counts, [*wrong, cuts]


def _place(report: TaskReport, split: Split, row: int) -> str:
    assert report.rows is not None
    return report.rows.place(split.source, int(split.rows[row]))
