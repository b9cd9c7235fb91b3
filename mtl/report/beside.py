"""What a table says of how good its rows are: baselines, and what is to be said of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtl.zoo.quality import (
    PHRASES,
    TITLES,
    baselines,
    beside,
    beside_text,
    constant_of,
    findings,
)

if TYPE_CHECKING:
    from mtl.report.tables import Row
    from mtl.zoo import Entry


def baselines_of(entries: Sequence[Entry]) -> dict[str, Any]:
    """Name → value on test, and ``train``, the rows learned from: of the first entry that has some.

    Runs of a row of a table have the same rows and base.
    """
    for entry in entries:
        found = {name: item["value"] for name, item in beside(entry.manifest).items()}
        if found:
            return {**found, "train": baselines(entry.manifest).get("train")}
    return {}


def findings_of(entries: Sequence[Entry]) -> list[str]:
    """What is to be said of the runs, each with the seeds."""
    by_text: dict[str, list[int]] = {}
    for entry in entries:
        constant = constant_of(entry)
        for kind, sentence in findings(entry.manifest, constant).items():
            what = f", {constant}" if kind == "constant" else ""
            said = sentence if kind == "cut" else f"{PHRASES[kind]}{what}"
            by_text.setdefault(said, []).append(entry.manifest.seed)
    return [f"{text} (seed {', '.join(map(str, sorted(s)))})" for text, s in by_text.items()]


def baselines_told(rows: Sequence[Row]) -> list[tuple[str, Any, str, str]]:
    """Task, training rows, what sets them apart, and what the baselines have on test.

    Of one task and number of training rows there are several where rows of the table differ in
    base, metric, data or how these are read; the third says in what, and is empty elsewhere.
    """
    found: dict[tuple[str, Any], dict[str, Row]] = {}
    for row in rows:
        if row.baselines:
            named = {name: row.baselines[name] for name in TITLES if name in row.baselines}
            same = found.setdefault((row.task, row.baselines["train"]), {})
            same.setdefault(beside_text(named), row)
    told = []
    for (task, train), same in found.items():
        marks = [_mark(row) for row in same.values()]
        for text, own in zip(same, marks, strict=True):
            kept = [value for key, value in own.items() if any(value != m.get(key) for m in marks)]
            told.append((task, train, ", ".join(filter(None, kept)), text))
    return told


def _mark(row: Row) -> dict[str, str]:
    """What a row is of that a baseline depends on."""
    from mtl.engine.settings import ROW_SETTINGS
    from mtl.zoo.settings import settings_text

    reads = (*ROW_SETTINGS, "data", "max_length", "pair")
    read = {
        key: settings_text({key: value})
        for key, value in row.settings.items()
        if key in reads or key.startswith("task.")
    }
    return {"base": f"base {row.base}", "metric": row.metric, **read}


def baseline_lines(rows: Sequence[Row]) -> str:
    """A line per task and rows with what the baselines have on test, each after a line break."""
    return "".join(
        f"\nbaselines on test, {task}, {train} training rows{f', {apart}' if apart else ''}: {text}"
        for task, train, apart, text in baselines_told(rows)
    )
