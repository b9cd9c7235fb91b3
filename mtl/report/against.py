"""Our runs beside a published table: a verdict for every cell, and what follows from them.

Which runs a cell takes, and what makes them not comparable: :mod:`mtl.report.cell_runs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mtl.report.cell_runs import chosen, is_row, runs_of
from mtl.report.published import AVERAGE, Column, PublishedRow, PublishedTable, task_mean
from mtl.report.stats import Interval, mean_interval, zero_p
from mtl.report.verdicts import (
    AVERAGE_MARGINS,
    LEVEL,
    MARGINS,
    UNRESOLVED,
    Difference,
    difference,
    holm,
    runs_needed,
    variation,
    verdict,
)
from mtl.tasks import load_suite
from mtl.zoo.merged import once

if TYPE_CHECKING:
    from mtl.zoo import Entry

NOT_COMPARABLE, NOT_RUN, GAP = "not comparable", "not run", "not here"


@dataclass(frozen=True)
class Cell:
    """One published figure and ours.

    Attributes:
        on: the column, or ``average``.
        published: None where the source prints nothing.
        ours: seed → value, in the unit of the table.
        found: their difference, None where there is none.
        margin: δ in the unit of the table, None where none is known.
        p: of no difference, after Holm's correction over the table.
        verdict: see :mod:`mtl.report.verdicts`; or ``not comparable``, ``not run``, ``not here``.
        differs: what is not the same, where that is so.
        needs: how many runs of ours would decide it, None where it is decided or nobody knows.
        cv: coefficient of variation of the two figures, in per cent.
        notes: what else is to be known.
        refs: the entries behind ours.
    """

    row: str
    on: str
    published: float | None
    ours: Mapping[int, float] = field(default_factory=dict)
    found: Difference | None = None
    margin: float | None = None
    p: float | None = None
    verdict: str = NOT_RUN
    differs: tuple[str, ...] = ()
    needs: int | None = None
    cv: float | None = None
    notes: tuple[str, ...] = ()
    refs: tuple[str, ...] = ()

    @property
    def mean(self) -> float | None:
        """Ours over the seeds."""
        return sum(self.ours.values()) / len(self.ours) if self.ours else None

    def to_dict(self) -> dict[str, Any]:
        found = None
        if self.found is not None:
            found = {**self.found.__dict__, "interval90": self.found.interval(0.9)}
        return {**self.__dict__, "mean": self.mean, "found": found}


@dataclass(frozen=True)
class Tested:
    """A conclusion of the source on our runs: ``gain`` is better − than, paired by seed."""

    text: str
    gain: Interval | None
    p: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """A published table and what the zoo has of it.

    Attributes:
        ranks: column → Spearman's correlation of our means with the published figures over the
            rows that have both, and how many those are; of three rows or more.
    """

    table: PublishedTable
    cells: tuple[Cell, ...]
    ranks: Mapping[str, tuple[float, int]]
    conclusions: tuple[Tested, ...]

    def counts(self) -> dict[str, int]:
        """Verdict → cells, printed averages included."""
        found: dict[str, int] = {}
        for cell in self.cells:
            found[cell.verdict] = found.get(cell.verdict, 0) + 1
        return found

    def to_dict(self) -> dict[str, Any]:
        return {
            "table": self.table.name,
            "counts": self.counts(),
            "cells": [cell.to_dict() for cell in self.cells],
            "ranks": {on: {"rho": rho, "rows": n} for on, (rho, n) in self.ranks.items()},
            "conclusions": [
                {**item.__dict__, "gain": item.gain.to_dict() if item.gain else None}
                for item in self.conclusions
            ],
        }


def compare(table: PublishedTable, entries: Sequence[Entry]) -> Comparison:
    """Every cell of a published table with the runs that the zoo has of it."""
    cells: list[Cell] = []
    tasks = load_suite(table.suite).tasks
    found = once(entries)
    for row in table.rows:
        fitting = [entry for entry in found if is_row(entry, row)]
        own = [_cell(table, row, column, fitting, tasks) for column in table.columns]
        cells += own
        if row.average is not None:
            cells.append(_average(table, row, own))
    return Comparison(table, _judged(cells), _ranks(table, cells), _conclusions(table, cells))


def _cell(
    table: PublishedTable,
    row: PublishedRow,
    column: Column,
    entries: Sequence[Entry],
    tasks: Sequence[str],
) -> Cell:
    place = [item.name for item in table.columns].index(column.name)
    cell = Cell(row.name, column.name, row.values[place])
    if row.method is None:
        return replace(cell, verdict=GAP, differs=(f"we have no {row.gap}",))
    if cell.published is None:
        return cell
    runs = [run for entry in entries for run in runs_of(table, row, column, entry, tasks)]
    if not runs:
        return cell
    taken, notes = chosen(runs)
    ours = {run.entry.manifest.seed: run.value * table.scale for run in taken}
    std = row.std[place] if row.std else None
    margin = MARGINS.get(column.task)
    return replace(
        cell,
        ours=dict(sorted(ours.items())),
        found=difference(list(ours.values()), cell.published, table.runs_of(row, column), std),
        margin=None if margin is None else margin * table.scale / 100,
        differs=tuple(dict.fromkeys(text for run in taken for text in run.differs)),
        notes=tuple(dict.fromkeys([*notes, *(text for run in taken for text in run.notes)])),
        refs=tuple(run.entry.ref for run in taken),
    )


def _average(table: PublishedTable, row: PublishedRow, cells: Sequence[Cell]) -> Cell:
    """The printed average beside the mean over tasks of our runs, over the seeds all tasks have."""
    cell = Cell(row.name, AVERAGE, row.average)
    if row.method is None:
        return replace(cell, verdict=GAP, differs=(f"we have no {row.gap}",))
    seeds = set.intersection(*(set(item.ours) for item in cells))
    if not seeds or row.average is None:
        return cell
    ours = {
        seed: task_mean(table.columns, [item.ours[seed] for item in cells])
        for seed in sorted(seeds)
    }
    margin = AVERAGE_MARGINS.get(table.suite)
    return replace(
        cell,
        ours=ours,
        found=difference(list(ours.values()), row.average, table.runs_of(row)),
        margin=None if margin is None else margin * table.scale / 100,
        differs=tuple(dict.fromkeys(f"{c.on}: {text}" for c in cells for text in c.differs)),
        notes=(row.remark,) if row.remark else (),
    )


def _judged(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells with their verdicts; Holm's correction is over all that are judged."""
    tested = [c for c in cells if c.found is not None and not c.differs and c.margin is not None]
    p_values = [None if c.found is None else c.found.p_zero() for c in tested]
    known = [p for p in p_values if p is not None]
    adjusted = iter(holm(known))
    corrected = {
        (cell.row, cell.on): None if p is None else next(adjusted)
        for cell, p in zip(tested, p_values, strict=True)
    }
    return tuple(_verdict(cell, corrected.get((cell.row, cell.on)), len(known)) for cell in cells)


def _verdict(cell: Cell, p: float | None, tests: int) -> Cell:
    if cell.found is None or cell.published is None:
        return cell
    cv = variation(cell.mean or 0.0, cell.published)
    if cell.differs:
        return replace(cell, verdict=NOT_COMPARABLE, cv=cv)
    said = verdict(cell.found, cell.margin, p)
    needs = None
    if said == UNRESOLVED and cell.margin is not None:
        needs = runs_needed(cell.found, cell.margin, tests)
    return replace(cell, verdict=said, p=p, needs=needs, cv=cv)


def _ranks(table: PublishedTable, cells: Sequence[Cell]) -> dict[str, tuple[float, int]]:
    from scipy.stats import spearmanr

    found = {}
    for on in (*(column.name for column in table.columns), AVERAGE):
        pairs = [(c.mean, c.published) for c in cells if c.on == on and c.ours]
        if len(pairs) > 2 and all(len(set(side)) > 1 for side in zip(*pairs, strict=True)):
            rho = spearmanr(*zip(*pairs, strict=True)).statistic
            found[on] = (float(rho), len(pairs))
    return found


def _conclusions(table: PublishedTable, cells: Sequence[Cell]) -> tuple[Tested, ...]:
    """What the source concludes, tested on our runs: paired t over seeds, Holm over all of them."""
    ours = {(cell.row, cell.on): cell.ours for cell in cells}
    gains: list[tuple[str, Interval | None, float | None]] = []
    for item in table.conclusions:
        better, than = (ours.get((name, item.on), {}) for name in (item.better, item.than))
        apart = [better[seed] - than[seed] for seed in sorted(better.keys() & than.keys())]
        gain = mean_interval(apart) if apart else None
        gains.append((str(item), gain, zero_p(apart)))
    adjusted = iter(holm([p for _, _, p in gains if p is not None]))
    tested = []
    for text, gain, p in gains:
        corrected = None if p is None else next(adjusted)
        said = "not run" if gain is None else "undecided"
        if gain is not None and corrected is not None and corrected <= LEVEL:
            said = "holds" if gain.mean > 0 else "does not hold"
        tested.append(Tested(text, gain, corrected, said))
    return tuple(tested)
