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
        for kind in findings(entry.manifest, constant):
            what = f", {constant}" if kind == "constant" else ""
            by_text.setdefault(f"{PHRASES[kind]}{what}", []).append(entry.manifest.seed)
    return [f"{text} (seed {', '.join(map(str, sorted(s)))})" for text, s in by_text.items()]


def baseline_lines(rows: Sequence[Row]) -> str:
    """A line per task and rows with what the baselines have on test, each after a line break."""
    lines = dict.fromkeys(
        f"\nbaselines on test, {row.task}, {row.baselines['train']} training rows: "
        + beside_text({name: row.baselines[name] for name in TITLES if name in row.baselines})
        for row in rows
        if row.baselines
    )
    return "".join(lines)
