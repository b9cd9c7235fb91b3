"""What judges the candidates of ``--sources best``: dev, or, where it is small, folds.

**Dev.** A candidate is trained as it would be and judged on dev. The own adapter's state was
selected on these very rows, which flatters it a little.

**Folds.** Where dev has fewer than :data:`FEW` rows, training and dev rows are put together and
divided into :data:`FOLDS` parts; a candidate is trained on two and judged on the third, each part
once, and its figure is their mean. Dev rows are in it because there is nothing that they are
better kept for, and few rows are what is lacking. The own adapter has seen the labels of the
training rows: a head on its features of these very rows would find them all easy. So it is trained
anew for every fold, as its entry was, on the fold's rows alone. Nothing selects a state there
(``select=last``), since what would is the part that judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from mtl.compose.best import PLAIN, SHARES, Candidate, Figures, Judge
from mtl.compose.stage_two import Target, plan_compose
from mtl.engine.settings import LAST, RunSettings
from mtl.errors import RequestError
from mtl.methods import METHODS
from mtl.runs.loading import stored_settings
from mtl.runs.run import Run
from mtl.tasks.kinds import KINDS
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.data import TaskData
    from mtl.runs.context import Context
    from mtl.runs.trial import Trial
    from mtl.runs.workspace import Workspace
    from mtl.tasks import Suite
    from mtl.zoo import Entry

SEED = 100
"""Of the trials: none of the seeds that runs are usually shown with."""
LOOKS = 5
"""Evaluations of a trial that is shorter than a run."""
FEW = 200
"""Dev rows below which folds judge."""
FOLDS = 3
FOLD_SHARES = {**SHARES, "used": 0.25}
FOLD_FINALISTS = 2
HEAD_STEPS = 2000
"""Steps of a head on fixed features at most."""


@dataclass(frozen=True)
class Trials:
    """Trials of compositions of ``sources`` for a target, on dev or on folds.

    Attributes:
        targets: method → target, as it would be run.
        main: the method whose full run is the unit of cost.
        sources: task → entry.
        folds: the data to judge on; one of them: those of the target.
        own: of every fold the run that makes the own adapter; empty where it is the stored one.
    """

    targets: Mapping[str, Target]
    main: str
    sources: Mapping[str, Entry]
    suite: Suite
    context: Context
    folds: Sequence[TaskData]
    own: Sequence[Run] = ()

    def score(self, candidate: Candidate, share: float) -> Figures:
        """Mean of the metric over the folds, and its standard error. Raises RunError."""
        (figures,) = self.score_all([candidate], share)
        return figures

    def score_all(self, candidates: Sequence[Candidate], share: float) -> list[Figures]:
        """:meth:`score` of several, all their folds side by side where they fit."""
        from mtl.runs.trial import try_run

        workspace = self.context.workspace
        runs = {
            (candidate, fold): self._run(candidate, share, fold)
            for candidate in candidates
            for fold in range(len(self.folds))
        }
        heads = [key for key in runs if self._on_features(key[0], share)]
        long = [key for key in runs if key not in heads]
        tried = dict(zip(long, all_tried([runs[key] for key in long], workspace), strict=True))
        for key in heads:
            tried[key] = try_run(runs[key], workspace, features=True)
        return [
            self._figures([tried[candidate, fold] for fold in range(len(self.folds))])
            for candidate in candidates
        ]

    def _figures(self, trials: Sequence[Trial]) -> Figures:
        found = [
            (trial, int(data.sizes["dev"])) for trial, data in zip(trials, self.folds, strict=True)
        ]
        rows = sum(size for _, size in found)
        if any(trial.dev is None for trial, _ in found):
            return None, None
        dev = sum((trial.dev or 0.0) * size for trial, size in found) / rows
        if any(trial.stderr is None for trial, _ in found):
            return dev, None
        return dev, sum(((t.stderr or 0.0) * size) ** 2 for t, size in found) ** 0.5 / rows

    def price(self, candidate: Candidate, share: float) -> float:
        """What a trial costs, in full runs of the main composition, by the rows that it reads."""
        if self._on_features(candidate, share):
            return sum(data.sizes["train"] + data.sizes["dev"] for data in self.folds) / self._unit
        return sum(self._work(candidate, share, data) for data in self.folds) / self._unit

    @cached_property
    def _own(self) -> list[Entry]:
        """The own adapter of every fold; trained when the first trial wants it."""
        stored = self.sources[self.folds[0].spec.id]
        return _made_again(stored, self.own, self.context.workspace)

    @cached_property
    def _unit(self) -> float:
        main = self.targets[self.main]
        return row_passes(main.settings, main.data, learns=self.main != PLAIN)

    def _work(self, candidate: Candidate, share: float, data: TaskData) -> float:
        settings = self._settings(candidate, share, data)
        return row_passes(settings, data, learns=candidate.method != PLAIN)

    def _on_features(self, candidate: Candidate, share: float) -> bool:
        """Whether a head on features that are computed once tells it as well, for less."""
        if share >= 1 or not fixed_features(self.targets[candidate.method]):
            return False
        data = self.folds[0]
        return data.sizes["train"] + data.sizes["dev"] < self._work(candidate, share, data)

    def _settings(self, candidate: Candidate, share: float, data: TaskData) -> RunSettings:
        settings = self.targets[candidate.method].settings
        if len(self.folds) > 1:
            settings = unselected(settings, data)
        return shortened(settings, share, data)

    def _run(self, candidate: Candidate, share: float, fold: int) -> Run:
        data = self.folds[fold]
        if self._on_features(candidate, share):
            planned = planned_steps(self.targets[candidate.method].settings, data)
            share = min(1.0, HEAD_STEPS / planned)
        target = as_chosen(self.targets[candidate.method], candidate)
        target = replace(target, data=data, settings=self._settings(candidate, share, data))
        sources = {**self.sources}
        if self.own:
            sources[data.spec.id] = self._own[fold]
        (run,) = plan_compose(
            target,
            suite=self.suite,
            sources=[sources[task] for task in candidate.sources],
            seeds=[SEED],
            backbone=self.context.backbone,
            workspace=self.context.workspace,
        )
        return run


def judge_for(
    targets: Mapping[str, Target],
    main: str,
    sources: Mapping[str, Entry],
    suite: Suite,
    context: Context,
    *,
    at_once: int = 1,
) -> Judge:
    """Dev as the judge of compositions of ``sources``, or folds where it has few rows.

    Nothing is trained for it: its prices are known before. Its trials raise RunError where the own
    adapter cannot be trained anew.

    Args:
        targets: as of :class:`Trials`; main: the composition that was asked for.
        at_once: how many trials go side by side.
    """
    from mtl.data.folds import folds

    target = targets[main]
    data, settled = target.data, [name for name in targets if fixed_features(targets[name])]
    dev = Trials(targets, main, sources, suite, context, [data])
    rows = int(data.sizes["dev"])
    if not judged_by_folds(data, sources.get(data.spec.id)):
        return Judge(
            dev.score,
            data.spec.headline,
            rows,
            price=dev.price,
            settled=settled,
            score_all=dev.score_all,
            at_once=at_once,
        )
    parts = folds(data, FOLDS)
    runs, beside = [], {}
    if data.spec.id in sources:
        runs = [_own_run(sources[data.spec.id], part, suite, context) for part in parts]
        paid = sum(row_passes(run.settings, run.data, learns=True) for run in runs)
        beside[f"the own adapter of every fold ({counted(FOLDS, 'run')})"] = paid / dev._unit
    trials = replace(dev, folds=parts, own=runs)
    return Judge(
        trials.score,
        data.spec.headline,
        rows + int(data.sizes["train"]),
        by=f"train and dev ({FOLDS} folds)",
        price=trials.price,
        shares=FOLD_SHARES,
        finalists=FOLD_FINALISTS,
        settled=settled,
        beside=beside,
        score_all=trials.score_all,
        at_once=at_once,
    )


def judged_by_folds(data: TaskData, own: Entry | None) -> bool:
    """Whether dev is small, its rows can be divided, and the own adapter can be made anew."""
    from mtl.data.folds import can_fold

    if data.sizes["dev"] >= FEW or not can_fold(data):
        return False
    if own is None:
        return True
    try:
        stored_settings(own)
    except RequestError:
        return False
    return own.manifest.kind == "adapter" and own.manifest.method in METHODS


def as_chosen(target: Target, candidate: Candidate) -> Target:
    """``target`` from the candidate's start."""
    if candidate.start is None:
        return target
    settings = replace(target.method_settings, init_scale=candidate.start)
    return replace(target, method_settings=settings)


def fixed_features(target: Target) -> bool:
    """Whether a head on one vector per text is all that trains."""
    return target.method == PLAIN and not KINDS.get(target.data.spec.kind).windows


def planned_steps(settings: RunSettings, data: TaskData) -> int:
    """Optimiser steps of a run."""
    return settings.max_steps or settings.epochs * -(
        -int(data.sizes["train"]) // settings.batch_size
    )


def row_passes(settings: RunSettings, data: TaskData, *, learns: bool) -> float:
    """Rows that a run takes through the encoder, there and, where something in it learns, back."""
    steps = planned_steps(settings, data)
    batches = -(-int(data.sizes["train"]) // settings.batch_size)
    looks = -(-steps // (settings.eval_every or batches))
    batch = min(settings.batch_size, int(data.sizes["train"]))
    return float(steps * batch * (2 if learns else 1) + looks * int(data.sizes["dev"]))


def shortened(settings: RunSettings, share: float, data: TaskData) -> RunSettings:
    """The same with a share of the steps, their schedule included, and a few evaluations."""
    if share >= 1:
        return settings
    steps = max(LOOKS, round(planned_steps(settings, data) * share))
    looks = steps if settings.select == LAST else max(1, steps // LOOKS)
    return replace(settings, max_steps=steps, eval_every=looks, patience=0)


def unselected(settings: RunSettings, data: TaskData) -> RunSettings:
    """The same to the last step, with one evaluation behind it."""
    steps = planned_steps(settings, data)
    return replace(settings, select=LAST, patience=0, eval_every=steps)


def _own_run(own: Entry, data: TaskData, suite: Suite, context: Context) -> Run:
    """The run that made ``own``, on the rows of a fold."""
    from mtl.methods import find_method
    from mtl.methods.method import make_settings
    from mtl.train.init_from import begun_as, resolve_init
    from mtl.train.stage_one import build_adapter

    manifest = own.manifest
    method = find_method(manifest.method)
    settings = make_settings(manifest.method, method.settings, dict(manifest.method_settings))
    stored, begun = resolve_init(
        stored_settings(own),
        manifest.method,
        settings,
        data,
        context.backbone.base.to_dict(),
        context.workspace,
    )
    return Run(
        kind="adapter",
        suite=suite.home_of(data.spec.id),
        datas={data.spec.id: data},
        backbone=context.backbone,
        method=manifest.method,
        method_settings=settings,
        settings=unselected(stored, data),
        seed=int(manifest.seed),
        build=begun_as(begun, build_adapter, context.workspace),
    )


def _made_again(own: Entry, runs: Sequence[Run], workspace: Workspace) -> list[Entry]:
    """``own`` with the weights of each of ``runs``, which are made unless they were."""
    from mtl.runs.trial import kept_weights
    from mtl.zoo.check import file_table

    all_tried(runs, workspace, keep=True)
    folders = [kept_weights(run, workspace) for run in runs]
    return [
        replace(own, folder=folder, files=file_table(folder, own.ref), digest=run.runhash)
        for run, folder in zip(runs, folders, strict=True)
    ]


def all_tried(runs: Sequence[Run], workspace: Workspace, *, keep: bool = False) -> list[Trial]:
    """Trials of all runs, side by side where they fit and the workspace says so.

    Raises:
        MtlError: one failed: the first, one by one; else when all have ended.
    """
    from mtl.runs.trial import Trial, try_run, try_runs

    if workspace.beside == 1:
        return [try_run(run, workspace, keep=keep) for run in runs]
    tried = []
    for told in try_runs(runs, workspace, keep=keep):
        if not isinstance(told, Trial):
            raise told
        tried.append(told)
    return tried
