"""Methods side by side on a whole suite: single adapters, two-stage compositions, joint models."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from statistics import stdev
from typing import TYPE_CHECKING, Any

from mtl.engine.recorded import all_settings
from mtl.errors import ZooError
from mtl.report.picking import OnDev, best_by_dev, dev_of, on_dev
from mtl.report.stats import Interval, mean_interval
from mtl.report.suite_text import KINDS
from mtl.report.tables import base_names
from mtl.words import counted, printable
from mtl.zoo.caveats import headline, stated
from mtl.zoo.composition import is_weight
from mtl.zoo.homes import Homes
from mtl.zoo.merged import once
from mtl.zoo.names import is_derived
from mtl.zoo.schema import joint_sections
from mtl.zoo.settings import differing, method_settings_of, reading_of

if TYPE_CHECKING:
    from mtl.zoo import Entry
    from mtl.zoo.manifest import Manifest

_LOG = logging.getLogger("mtl.report")
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F16": 16, "BF16": 16, "I16": 16, "I32": 32, "F32": 32}


@dataclass(frozen=True)
class Cell:
    """What a method reached on one task: its mean over ``seeds``, trained on ``data``; ``dev`` is
    the mean on dev of the runs that have one, ``std`` the standard deviation over seeds.

    ``caveats`` say why it says less than it seems (:mod:`mtl.tasks.caveats`).
    """

    mean: float
    seeds: tuple[int, ...]
    data: str
    caveats: tuple[str, ...] = ()
    dev: float | None = None
    std: float | None = None


@dataclass(frozen=True)
class SuiteRow:
    """One method on a suite.

    Attributes:
        scores: task id → cell; tasks without a run, or without a defined score, are not in it.
        average: unweighted mean over all tasks of the table, None unless all are there. An interval
            over seeds where all tasks have the same ones.
        trainable: parameters trained per task: by a run of its own, or a joint run's share.
        stored: 32-bit numbers kept per task, heads included (a mask's bit is 1/32). Sources that
            several compositions share count once over all tasks.
        steps: optimiser steps behind the row, all tasks together, mean over seeds; those of a
            composition's sources stand in ``source_steps``, None where a source is not in the zoo.
        settings: what sets the row apart from others of its kind and method; mostly empty.
    """

    kind: str
    method: str
    scores: Mapping[str, Cell]
    average: Interval | None
    trainable: float
    stored: float | None
    steps: float
    source_steps: float | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "scores": {task: cell.__dict__ for task, cell in self.scores.items()},
            "average": self.average.to_dict() if self.average else None,
        }


@dataclass(frozen=True)
class SuiteTable:
    """The rows of one suite and base; ``notes`` say what is not comparable in them.

    ``average_of`` is what the averages are of: headline metric → how many tasks have it.
    """

    suite: str
    base: str
    tasks: tuple[str, ...]
    rows: tuple[SuiteRow, ...]
    notes: tuple[str, ...]
    average_of: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "rows": [row.to_dict() for row in self.rows]}


@dataclass(frozen=True)
class _Run:
    """One entry's answer for one task."""

    entry: Entry
    task: str
    metric: str
    score: float | None
    data: str
    dev: OnDev
    caveat: str | None = None


def suite_tables(
    entries: Sequence[Entry], zoo: Sequence[Entry] = (), suite: str | None = None
) -> list[SuiteTable]:
    """A table per suite and base of ``entries``.

    Runs belong to one row when kind, method and the method's settings agree (and how many sources
    of which methods, or which tasks, where there are such). Recipes may set the run itself for each
    task, so of several run settings or data of one task, one is shown, and a note says so: the best
    on dev; where dev scores are missing or of other rows, the one with most seeds. Of a learning
    curve the runs on the most rows are shown.

    Args:
        zoo: where sources are looked up by digest, beside ``entries``.
        suite: the one that was asked for; if by its file, runs of its tasks are all of it.
    """
    from mtl.report.curve import shorter

    places: dict[tuple[str, str], list[Entry]] = {}
    short = shorter(entries)
    homes, bases = Homes(suite), base_names(entries)
    for entry in filter(_readable, once(entries)):
        manifest = entry.manifest
        base = bases[manifest.base["fingerprint"]]
        home = homes.of(manifest.suite, manifest.task["id"])
        places.setdefault((home, base), []).append(entry)
    known = {entry.digest: entry for entry in [*zoo, *entries]}
    tables = []
    for (home, base), every in sorted(places.items()):
        found = [entry for entry in every if entry.digest not in short]
        table = _table(home, base, found, known)
        if beyond := len(every) - len(found):
            said = f"{counted(beyond, 'run')} of learning curves, on fewer rows: --curve shows them"
            table = replace(table, notes=(*table.notes, said))
        tables.append(table)
    return tables


def _table(
    suite: str, base: str, entries: Sequence[Entry], known: Mapping[str, Entry]
) -> SuiteTable:
    groups: dict[tuple[str, ...], list[_Run]] = {}
    for entry in entries:
        groups.setdefault(_row_of(entry), []).extend(_runs(entry))
    tasks = sorted({run.task for runs in groups.values() for run in runs})
    notes: list[str] = []
    found = [(runs, _row(runs, tasks, known, notes)) for _, runs in sorted(groups.items())]
    apart = differing(
        [(row.kind, row.method) for _, row in found],
        [_settings_of(runs[0].entry.manifest) for runs, _ in found],
    )
    rows = [replace(row, settings=own) for (_, row), own in zip(found, apart, strict=True)]
    rows.sort(key=lambda row: list(KINDS).index(row.kind))
    for task in tasks:
        if len({row.scores[task].data for row in rows if task in row.scores}) > 1:
            notes.append(f"{task}: the rows trained or were tested on different data")
    notes += _selections(found)
    metrics = {run.task: run.metric for runs in groups.values() for run in runs}
    for task in tasks:
        named = {run.metric for runs in groups.values() for run in runs if run.task == task}
        if len(named) > 1:
            notes.append(f"{task}: the rows are not of one metric ({', '.join(sorted(named))})")
    of = dict(Counter(metrics[task] for task in tasks))
    return SuiteTable(suite, base, tuple(tasks), tuple(rows), tuple(notes), of)


def _selections(found: Sequence[tuple[Sequence[_Run], SuiteRow]]) -> list[str]:
    """What picked the states of the rows, where it was not the same for all runs."""
    by: dict[str, list[str]] = {}
    for runs, row in found:
        for run in runs:
            names = by.setdefault(run.entry.manifest.selected_by() or "unknown", [])
            where = f"{row.method} on {run.task}"
            if where not in names:
                names.append(where)
    if len(by) < 2:
        return []
    usual = max(by, key=lambda key: len(by[key]))
    others = [f"{', '.join(names)} by {key}" for key, names in sorted(by.items()) if key != usual]
    return [f"states were selected by {usual}; {'; '.join(others)}"]


def _row_of(entry: Entry) -> tuple[str, ...]:
    """What the runs of one row have in common."""
    from mtl.files import canonical_json

    manifest = entry.manifest
    found = [manifest.kind, manifest.method, canonical_json(method_settings_of(manifest))]
    if manifest.kind == "composition":
        found += [str(len(manifest.parents)), *sorted({p["method"] for p in manifest.parents})]
    if manifest.kind == "joint":
        found += list(_joint(entry))
        found.append(canonical_json(manifest.run_settings))
    return tuple(found)


def _settings_of(manifest: Manifest) -> dict[str, Any]:
    """What of a row's settings all its runs have in common, see :func:`_row_of`."""
    if manifest.kind == "joint":
        tasks = ", ".join(item["id"] for item in manifest.task["tasks"])
        return {**all_settings(manifest), "tasks": tasks}
    sources = sorted({parent["method"] for parent in manifest.parents})
    return {**method_settings_of(manifest), "source methods": ", ".join(sources)}


def _runs(entry: Entry) -> list[_Run]:
    manifest = entry.manifest
    if manifest.kind != "joint":
        test = headline(entry) or {"value": None}
        data = manifest.data["fingerprint"]
        dev = dev_of(entry)
        task = manifest.task
        of = (entry, task["id"], task["headline"])
        return [_Run(*of, test["value"], data, dev, test.get("caveat"))]
    runs = []
    for task, data in _joint(entry).values():
        name = f"{task['id']}/{task['headline']}"
        test = stated(entry, "test", name) or {"value": None}
        score, mark = test["value"], data["fingerprint"]
        dev = on_dev(entry, task, data, name)
        of = (entry, task["id"], task["headline"])
        runs.append(_Run(*of, score, mark, dev, test.get("caveat")))
    return runs


def _joint(entry: Entry) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    manifest = entry.manifest
    return joint_sections(manifest.task, manifest.data, entry.ref)


def _readable(entry: Entry) -> bool:
    """Whether an entry says what a table needs, and is no control; the former is told, once."""
    if entry.manifest.control:
        return False
    if entry.manifest.kind == "joint":
        try:
            _joint(entry)
        except ZooError as error:
            _LOG.warning("left out: %s", printable(error))
            return False
    return True


def _row(
    runs: Sequence[_Run], tasks: Sequence[str], known: Mapping[str, Entry], notes: list[str]
) -> SuiteRow:
    manifest = runs[0].entry.manifest
    shown = {}
    for task in tasks:
        found = [run for run in runs if run.task == task]
        if found:
            shown[task] = _shown(task, found, manifest.method, notes)
    scores = {}
    for task, found in shown.items():
        values = {run.entry.manifest.seed: run.score for run in found if run.score is not None}
        if values:
            mean = sum(values.values()) / len(values)
            doubts = dict.fromkeys(run.caveat for run in found if run.caveat)
            ondev = [run.dev.value for run in found if run.dev.value is not None]
            dev = _mean(ondev) if ondev else None
            std = stdev(values.values()) if len(values) > 1 else None
            scores[task] = Cell(mean, tuple(sorted(values)), found[0].data, tuple(doubts), dev, std)
    chosen = {run.entry.digest: run.entry for found in shown.values() for run in found}
    joint = manifest.kind == "joint"
    share = len(shown) if joint else 1
    per_task = [_mean([_trainable(run.entry) for run in found]) for found in shown.values()]
    steps = [_mean([run.entry.manifest.training["steps"] for run in f]) for f in shown.values()]
    sources = {p["digest"]: known.get(p["digest"]) for e in chosen.values() for p in _parents(e)}
    return SuiteRow(
        kind=manifest.kind,
        method=manifest.method + (f" (K={len(manifest.parents)})" if manifest.parents else ""),
        scores=scores,
        average=_average(scores, shown, tasks),
        trainable=_mean(per_task) / share,
        stored=_stored(shown, sources, joint=joint),
        steps=steps[0] if joint else sum(steps),
        source_steps=_source_steps(sources),
    )


def _shown(task: str, runs: Sequence[_Run], method: str, notes: list[str]) -> list[_Run]:
    """Of several settings or data of one task the best on dev, see :func:`suite_tables`."""
    from mtl.files import canonical_json

    variants: dict[tuple[str, ...], list[_Run]] = {}
    for run in sorted(runs, key=_created, reverse=True):  # of equals, the newest
        manifest = run.entry.manifest
        sources = [parent["digest"] for parent in manifest.parents]
        grouping = manifest.method_settings.get("grouping")
        how = [manifest.run_settings, reading_of(manifest), grouping]
        key = (run.data, run.metric, canonical_json(how), *sources)
        variants.setdefault(key, []).append(run)
    found = list(variants.values())
    if len(found) == 1:
        return found[0]
    best = best_by_dev([[run.dev for run in variant] for variant in found])
    rule = "with most seeds, for lack of dev scores of the same rows," if best is None else (
        "that is best on dev"
    )  # fmt: skip
    read = {canonical_json(reading_of(run.entry.manifest)) for run in runs}
    differ = "how the task is read, " if len(read) > 1 else ""
    differ += "run settings, data or sources"
    what = f"{len(found)} variants ({differ}); the one {rule} is shown"
    notes.append(f"{task}, {method}: {what}")
    return max(found, key=len) if best is None else found[best]


def _average(
    scores: Mapping[str, Cell], shown: Mapping[str, Sequence[_Run]], tasks: Sequence[str]
) -> Interval | None:
    if len(scores) != len(tasks):
        return None
    seeds = {cell.seeds for cell in scores.values()}
    if len(seeds) > 1:
        mean = _mean([cell.mean for cell in scores.values()])
        return Interval(mean, None, None, min(len(found) for found in seeds))
    by_seed: dict[int, list[float]] = {}
    for found in shown.values():
        for run in found:
            if run.score is not None:
                by_seed.setdefault(run.entry.manifest.seed, []).append(run.score)
    return mean_interval([_mean(values) for _, values in sorted(by_seed.items())])


def _stored(
    shown: Mapping[str, Sequence[_Run]], sources: Mapping[str, Entry | None], *, joint: bool
) -> float | None:
    own = [stored_numbers(found[0].entry) for found in shown.values()]
    shared = [None if entry is None else stored_numbers(entry) for entry in sources.values()]
    everything = own[:1] if joint else [*own, *shared]
    if any(size is None for size in everything):
        return None
    return sum(size for size in everything if size is not None) / len(shown)


def stored_numbers(entry: Entry) -> float | None:
    """32-bit numbers in an entry's weights, head included; None where a file cannot be read.

    What follows from the weights, predictions and shares, is none of them.
    """
    from safetensors import SafetensorError, safe_open

    bits = 0
    for name in entry.files:
        if not name.endswith(".safetensors") or is_derived(name):
            continue
        try:
            with safe_open(entry.folder / name, framework="np") as stream:
                for key in stream.keys():  # noqa: SIM118
                    if is_weight(key):
                        part = stream.get_slice(key)
                        bits += prod(part.get_shape()) * _BITS.get(part.get_dtype(), 64)
        except (OSError, SafetensorError, ValueError):
            return None
    return bits / 32


def _source_steps(sources: Mapping[str, Entry | None]) -> float | None:
    found = list(sources.values())
    if any(entry is None for entry in found):
        return None
    return float(sum(e.manifest.training["steps"] for e in found if e is not None))


def _parents(entry: Entry) -> Sequence[Mapping[str, Any]]:
    return entry.manifest.parents


def _trainable(entry: Entry) -> int:
    return int(entry.manifest.training["trainable_parameters"])


def _created(run: _Run) -> str:
    return run.entry.manifest.created


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
