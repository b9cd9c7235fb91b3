"""Which runs of a zoo are those of a cell of a published table, and what is not the same in them.

A cell takes the runs of its row's method and its column's task that differ in their seed alone; of
several settings or data those that are comparable, of these the best on dev. What makes a run not
comparable: another base, split protocol, metric, other numbers of training or test rows (a partial
mirror, few shots, a limit), a composition of other sources or a joint run over other tasks than
the suite's. Settings of training are not asked: they are how a figure is reproduced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.files import canonical_json
from mtl.methods.pfeiffer import bottleneck_size
from mtl.report.picking import OnDev, best_by_dev, on_dev
from mtl.report.published import Column, PublishedRow, PublishedTable
from mtl.zoo.schema import joint_sections
from mtl.zoo.settings import reading_of

if TYPE_CHECKING:
    from mtl.zoo import Entry

_OWNERS = ("FacebookAI/", "google-bert/")
"""Under whose names the Hub has bases that papers call without one."""


@dataclass(frozen=True)
class Run:
    """What one entry has for a cell."""

    entry: Entry
    value: float
    differs: tuple[str, ...]
    notes: tuple[str, ...]
    dev: OnDev


def is_row(entry: Entry, row: PublishedRow) -> bool:
    """Whether an entry is of the method of a row; a control is of none."""
    manifest = entry.manifest
    if (manifest.kind, manifest.method) != (row.kind, row.method) or manifest.control:
        return False
    settings = dict(manifest.method_settings)
    if "bottleneck" in settings:  # two settings say one width, as a number or as a share
        hidden = manifest.base["hidden_size"]
        factor = settings.get("reduction_factor") or 1.0
        settings["bottleneck"] = bottleneck_size(factor, settings["bottleneck"], hidden)
        settings["reduction_factor"] = hidden / settings["bottleneck"]
    return all(settings.get(key) == value for key, value in row.settings.items())


def runs_of(
    table: PublishedTable,
    row: PublishedRow,
    column: Column,
    entry: Entry,
    tasks: Sequence[str],
) -> Iterator[Run]:
    """What an entry has for a column: nothing, or one run."""
    manifest = entry.manifest
    task, data, prefix = manifest.task, manifest.data, ""
    differs: list[str] = []
    notes: list[str] = []
    if manifest.kind == "joint":
        sections = joint_sections(task, data, entry.ref)
        if column.task not in sections:
            return
        if set(sections) != set(tasks):
            differs.append(f"tasks together ({len(sections)}, published the {len(tasks)})")
        task, data = sections[column.task]
        prefix = f"{column.task}/"
    if task["id"] != column.task:
        return
    metrics = manifest.metrics.get(column.split, {})
    names = column.metric or (str(task["headline"]),)
    values = [metrics.get(prefix + name) for name in names]
    if not column.metric:
        differs.append(f"metric (the source: {column.metric_note or 'not stated'})")
    elif any(item is None for item in values):
        differs.append(f"metric (no {' and '.join(names)} on {column.split})")
        values = [metrics.get(prefix + str(task["headline"]))]
    if any(item is None or item["value"] is None for item in values):
        return
    differs += _elsewhere(table, row, entry, data)
    differs += _rows(column, data, values[0] or {})
    if manifest.kind == "composition":
        differs += _sources(table, entry, tasks)
        seeds = {parent["seed"] for parent in manifest.parents}
        if "seed" in table.sources and seeds != {table.sources["seed"]}:
            notes.append(f"published: sources of seed {table.sources['seed']} alone")
    if not column.rows:
        notes.append("numbers of rows are not published: not compared")
    mean = sum(float(item["value"]) for item in values if item) / len(values)
    name = prefix + str(task["headline"])
    yield Run(entry, mean, tuple(differs), tuple(notes), on_dev(entry, task, data, name))


def _elsewhere(
    table: PublishedTable, row: PublishedRow, entry: Entry, data: Mapping[str, Any]
) -> Iterator[str]:
    base, wanted = str(entry.manifest.base["id"]), row.base or table.base
    if base not in (wanted, *(owner + wanted for owner in _OWNERS)):
        yield f"base ({base}, published {wanted})"
    protocol = str(data["protocol"])
    if protocol != table.protocol:
        theirs = table.protocol or table.protocol_note or "not stated"
        yield f"protocol ({protocol}, published: {theirs})"


def _rows(column: Column, data: Mapping[str, Any], item: Mapping[str, Any]) -> Iterator[str]:
    """Numbers of rows that are not the published ones: a partial mirror, a limit, few shots."""
    ours = {"train": data["sizes"].get("train"), "test": item.get("n")}
    for split, rows in column.rows.items():
        if ours.get(split) != rows:
            yield f"{split} rows ({ours.get(split)}, published {rows})"


def _sources(table: PublishedTable, entry: Entry, tasks: Sequence[str]) -> Iterator[str]:
    parents = entry.manifest.parents
    have = {parent["task"] for parent in parents}
    if have != set(tasks) or len(parents) != len(tasks):
        some = f"{len(have & set(tasks))} of the {len(tasks)} of {table.suite}"
        yield f"sources ({some}, {len(parents)} in all)"
    methods = {parent["method"] for parent in parents}
    if "method" in table.sources and methods != {table.sources["method"]}:
        yield f"sources ({', '.join(sorted(methods))}, published {table.sources['method']})"


def chosen(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs of one variant: of the comparable ones, or of all, the best on dev."""
    comparable = [run for run in runs if not run.differs]
    variants = _variants(comparable or runs)
    if len(variants) == 1:
        return variants[0], []
    best = best_by_dev([[run.dev for run in variant] for variant in variants])
    rule = "with most seeds" if best is None else "that is best on dev"
    note = f"{len(variants)} variants, the one {rule}"
    return (max(variants, key=len) if best is None else variants[best]), [note]


def _variants(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in their seed alone; their sources may be those of each seed."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        manifest = run.entry.manifest
        key = (
            str(manifest.base["fingerprint"]),
            str(manifest.data["fingerprint"]),
            canonical_json(manifest.method_settings),
            canonical_json(manifest.run_settings),
            canonical_json(reading_of(manifest)),
            canonical_json([[p["task"], p["method"]] for p in manifest.parents]),
        )
        groups.setdefault(key, []).append(run)
    found: list[list[Run]] = []
    for group in groups.values():
        if len({run.entry.manifest.seed for run in group}) == len(group):
            found.append(group)
            continue
        apart: dict[tuple[str, ...], list[Run]] = {}  # the same seed over different sources
        for run in group:
            digests = tuple(parent["digest"] for parent in run.entry.manifest.parents)
            apart.setdefault(digests, []).append(run)
        found += apart.values()
    return found
