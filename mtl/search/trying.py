"""Settings that are tried, one or several at once, by runs of every seed: what became of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.engine.tracking import GivenUpError

if TYPE_CHECKING:
    from mtl.runs import Run, Workspace
    from mtl.runs.trial import Trial


@dataclass(frozen=True)
class Tried:
    """One setting and what became of it.

    Attributes:
        number: in the order of trials; 0 is what would run without the search.
        values: setting → value; of number 0 what they are without the search.
        dev: mean over the seeds of the headline metric on dev, None where there is none.
        stderr: its standard error over dev rows, of one seed; None of several.
        state: ``done``, ``pruned`` or ``failed``.
        steps: optimiser steps that were taken, seconds: of training.
        reason: why it failed.
        side_by_side: with how many, itself among them, its runs went side by side.
    """

    number: int
    values: Mapping[str, Any]
    dev: float | None
    stderr: float | None
    state: str
    steps: int
    seconds: float
    reason: str = ""
    side_by_side: int = 1


class _Watch:
    """Tells Optuna of every evaluation of a trial, and ends the trial where it says so."""

    def __init__(self, trial: Any, metric: str) -> None:
        self._trial, self._metric = trial, metric
        self.steps = 0
        self._looks = 0

    def begin(self, step: int) -> None:
        """Training begins, or goes on, at ``step``."""
        self.steps, self._looks = step, 0

    def log(self, event: Mapping[str, Any]) -> None:
        """Report an evaluation. Raises GivenUpError."""
        self._looks += 1
        self.steps = int(event["step"])
        value = event["metrics"].get(self._metric)
        if self._trial is None or value is None or not math.isfinite(value):
            return
        # Epochs, so that trials of other batch sizes are compared after as many rows.
        self._trial.report(value, round(1000 * event["epoch"]))
        if self._looks > 2 and self._trial.should_prune():
            raise GivenUpError


@dataclass
class Open:
    """A setting that is being tried.

    Attributes:
        runs: one per seed. trial: Optuna's; None of number 0, which it knows nothing of.
    """

    number: int
    values: Mapping[str, Any]
    runs: Sequence[Run]
    trial: Any


def attempt(going: Sequence[Open], workspace: Workspace) -> list[Tried]:
    """Try settings with every seed, seed by seed; with the first one they may be given up."""
    from mtl.engine import RunFolder
    from mtl.runs.trial import Trial, try_runs

    found: dict[int, list[Trial]] = {each.number: [] for each in going}
    ended: dict[int, Tried] = {}
    for seed in range(len(going[0].runs)):
        left = [each for each in going if each.number not in ended]
        runs = [each.runs[seed] for each in left]
        watches = [
            _Watch(None if seed else each.trial, run.data.spec.headline)
            for each, run in zip(left, runs, strict=True)
        ]
        told = try_runs(runs, workspace, watches)
        for each, run, watch, what in zip(left, runs, watches, told, strict=True):
            if isinstance(what, Trial):
                found[each.number].append(what)
                continue
            state, reason = "failed", str(what)
            if isinstance(what, GivenUpError):
                state, reason = "pruned", ""
                RunFolder(workspace.runs / run.runhash).clear_state()  # nobody will go on from it
            ended[each.number] = Tried(
                each.number, each.values, None, None, state, watch.steps, 0.0, reason
            )
    return [ended.get(each.number) or _judged(each, found[each.number]) for each in going]


def _judged(each: Open, found: Sequence[Trial]) -> Tried:
    """A setting that was tried with every seed."""
    at, steps = (each.number, each.values), sum(item.steps for item in found)
    scores = [item.dev for item in found]
    if None in scores:
        reason = f"dev {each.runs[0].data.spec.headline} is undefined"
        return Tried(*at, None, None, "failed", steps, 0.0, reason)
    dev = sum(float(score or 0.0) for score in scores) / len(scores)
    stderr = found[0].stderr if len(found) == 1 else None
    seconds, beside = (
        sum(item.seconds for item in found),
        max(item.side_by_side for item in found),
    )
    return Tried(*at, dev, stderr, "done", steps, seconds, side_by_side=beside)


def groups(numbers: Sequence[int], most: int) -> list[list[int]]:
    """0 to ``most`` - 1, ``most`` to twice that less 1, …: of each those that ``numbers`` has."""
    groups: dict[int, list[int]] = {}
    for number in numbers:
        groups.setdefault(number // most, []).append(number)
    return list(groups.values())
