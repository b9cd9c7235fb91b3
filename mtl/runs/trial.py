"""A run that is only tried: trained as it would be, judged on dev, not stored.

A choice between runs (of sources, settings) is made by trials. They see the training and dev rows
alone; no test row is read, tokenised or answered.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.engine import EvalSet, Job, RunFolder, evaluate, open_device, train
from mtl.engine.folder import TRIAL
from mtl.engine.passes import eval_passes, piece_overhead
from mtl.engine.tracking import GivenUpError
from mtl.engine.weighting import loss_weights
from mtl.errors import HeldError, MtlError
from mtl.files import sha256_json, write_json
from mtl.runs.beside import Fitting, most_beside, say_unfit

if TYPE_CHECKING:
    from mtl.engine import Device, Outcome, Trainable
    from mtl.engine.tracking import Listener
    from mtl.runs.run import Built, Run
    from mtl.runs.workspace import Workspace


@dataclass(frozen=True)
class Trial:
    """What a trial gave.

    Attributes:
        dev, stderr: the headline metric on dev, and its standard error; None where undefined.
        steps: optimiser steps; seconds: of training.
        known: whether it had been tried before.
        side_by_side: with how many, itself among them, it went side by side.
    """

    dev: float | None
    stderr: float | None
    steps: int
    seconds: float
    known: bool = False
    side_by_side: int = 1


def try_run(
    run: Run,
    workspace: Workspace,
    watch: Listener | None = None,
    *,
    features: bool = False,
    keep: bool = False,
) -> Trial:
    """Train ``run`` (of one task) and judge the selected state on dev.

    What was tried is kept beside the resume points (``<runs>/<runhash>/trial.json``): the same
    trial is not made twice, and one that was killed goes on.

    Args:
        watch: is told of every evaluation, and may give the trial up.
        features: train a head on features that are computed once
            (:mod:`mtl.runs.fixed_features`), where nothing but a head trains.
        keep: write the weights, too, as in an entry, into :func:`kept_weights`.

    Raises:
        MtlError: training failed.
        GivenUpError: ``watch`` has given it up.
    """
    known = _tried_before(run, workspace, features=features, keep=keep)
    if known is not None:
        return known
    device = _device(run, workspace)
    with _held(_place(run, workspace, features)[0], run):
        known = _tried_before(run, workspace, features=features, keep=keep)
        if known is not None:  # another process has tried it just now
            return known
        begun = _begin(run, workspace, device, watch, features=features)
        outcome = train(begun.job, device)
        return _end(begun, workspace, device, outcome, keep=keep)


def try_runs(
    runs: Sequence[Run],
    workspace: Workspace,
    watches: Sequence[Listener | None] | None = None,
    *,
    keep: bool = False,
) -> list[Trial | MtlError | GivenUpError]:
    """:func:`try_run` of several, those that fit side by side, as many as the workspace says.

    One that fails does not stop the others.

    Args:
        watches: one for each run.

    Returns:
        For each what the trial gave, or why it gave nothing.
    """
    watches = watches or [None] * len(runs)
    found: dict[int, Trial | MtlError | GivenUpError] = {}
    untried: set[int] = set()
    """Places of those that may still go side by side; a run that is there twice has one."""
    if workspace.beside != 1:
        fitting = Fitting(runs)
        first = {run.runhash: place for place, run in reversed([*enumerate(runs)])}
        untried = {
            place
            for place in first.values()
            if _tried_before(runs[place], workspace, keep=keep) is None
        }
    for place, run in enumerate(runs):
        if place in untried:
            _try_beside(runs, place, fitting, untried, workspace, watches, keep, found)
        if place not in found:
            try:
                found[place] = try_run(run, workspace, watches[place], keep=keep)
            except (MtlError, GivenUpError) as error:
                found[place] = error
    return [found[place] for place in range(len(runs))]


def _try_beside(
    runs: Sequence[Run],
    number: int,
    fitting: Fitting,
    untried: set[int],
    workspace: Workspace,
    watches: Sequence[Listener | None],
    keep: bool,
    found: dict[int, Trial | MtlError | GivenUpError],
) -> None:
    """Try one of ``runs`` with others that fit, if there are any ``untried``, into ``found``.

    They are no longer untried then. Those that another process is at, or that could not go
    together, are not found: who waits for one while he holds others may be waited for.
    """
    from mtl.backbone.beside import UnfitError
    from mtl.engine.together import Ended, train_together

    first = runs[number]
    device = _device(first, workspace)
    most = most_beside(first.backbone.base.hidden_size, workspace.beside, device)
    chosen = fitting.take(number, most, untried.__contains__)
    untried.difference_update(chosen)
    if len(chosen) < 2:
        return
    with ExitStack() as held:
        mine: list[int] = []
        for place in chosen:
            run = runs[place]
            try:
                with suppress(HeldError):
                    held.enter_context(_place(run, workspace)[0].lock(f"trial {run.label}"))
                    if _tried_before(run, workspace, keep=keep) is None:
                        mine.append(place)
            except MtlError as error:
                found[place] = error
        if len(mine) < 2:
            return
        begun: list[tuple[int, _Begun]] = []

        def jobs() -> Iterator[Job]:
            for place in mine:
                try:
                    each = _begin(runs[place], workspace, device, watches[place])
                except MtlError as error:
                    found[place] = error
                    continue
                begun.append((place, each))
                yield each.job

        def ended(number: int, what: Ended) -> None:
            place, each = begun[number]
            if isinstance(what, Exception):
                found[place] = what
                return
            try:
                found[place] = _end(each, workspace, device, what, keep=keep, beside=len(begun))
            except MtlError as error:
                found[place] = error

        try:
            train_together(jobs(), device, ended)
        except UnfitError as error:
            say_unfit(f"trials of {first.method}", len(mine), error)


def kept_weights(run: Run, workspace: Workspace) -> Path:
    """Where a trial that keeps its weights leaves them."""
    return workspace.runs / run.runhash / "weights"


@dataclass(frozen=True)
class _Begun:
    """A trial that is about to train: its model, the rows that judge it, what trains it."""

    run: Run
    built: Built
    dev: EvalSet
    job: Job


def _begin(
    run: Run,
    workspace: Workspace,
    device: Device,
    watch: Listener | None,
    *,
    features: bool = False,
) -> _Begun:
    spec, settings = run.spec, run.settings
    folder, identity = _place(run, workspace, features)
    rows: dict[str, Any] = {
        split: run.backbone.encode(run.data, split, workspace.cache) for split in ("train", "dev")
    }
    built = run.build(run, None)
    attached: Trainable = built.attached
    if features:
        from mtl.runs.fixed_features import head_alone, vectors

        rows = {split: vectors(run, built, rows[split], device) for split in rows}
        attached = head_alone(run, built)
    dev = EvalSet(spec, rows["dev"])
    width = run.backbone.base.hidden_size
    weights = loss_weights(settings, {run.task_id: EvalSet(spec, rows["train"])})
    job = Job(
        attached=attached,
        feed=run.feed({run.task_id: rows["train"]}),
        dev={run.task_id: replace(dev, weights=weights.get(run.task_id))},
        settings=settings,
        seed=run.seed,
        identity=identity,
        folder=folder,
        label=run.label,
        overhead=piece_overhead(settings, device.torch_device, width),
        tracker=watch,
        class_weights=weights,
    )
    return _Begun(run, built, dev, job)


def _end(
    begun: _Begun,
    workspace: Workspace,
    device: Device,
    outcome: Outcome,
    *,
    keep: bool,
    beside: int = 1,
) -> Trial:
    """Judge a trial that is trained by its dev rows, and keep what came of it."""
    run, job = begun.run, begun.job
    passes = eval_passes(run.settings, device.torch_device)
    found = evaluate(job.attached, begun.dev, device, passes).summary()[run.spec.headline]
    told = {
        "dev": found["value"],
        "stderr": found["stderr"],
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        **({"side_by_side": beside} if beside > 1 else {}),
    }
    if keep:
        target = kept_weights(run, workspace)
        (job.folder.path / TRIAL).unlink(missing_ok=True)  # of one without them: not done till then
        shutil.rmtree(target, ignore_errors=True)  # half of one, of a search that was killed
        target.mkdir(parents=True)
        begun.built.save(target)
    write_json(job.folder.path / TRIAL, {"runhash": job.identity, **told})
    job.folder.clear_state()
    return Trial(**told)


def _device(run: Run, workspace: Workspace) -> Device:
    return open_device(
        run.settings.precision,
        hidden_size=run.backbone.base.hidden_size,
        deterministic=workspace.deterministic,
    )


def _place(run: Run, workspace: Workspace, features: bool = False) -> tuple[RunFolder, str]:
    """The folder of a trial, and what it is known by."""
    identity = sha256_json({"of": run.runhash, "on": "features"}) if features else run.runhash
    return RunFolder(workspace.runs / identity), identity


@contextmanager
def _held(folder: RunFolder, run: Run) -> Iterator[None]:
    """The run's folder for this process: one that is at the same trial is waited for.

    Nothing can be chosen without its outcome, and it is kept for both.
    """
    doing = f"trial {run.label}"
    with ExitStack() as held:
        try:
            held.enter_context(folder.lock(doing))
        except HeldError as error:
            print(f"{doing}: waiting for {error.who}", file=sys.stderr, flush=True)
            held.enter_context(folder.lock(doing, wait=True))
        yield


def _tried_before(
    run: Run, workspace: Workspace, *, features: bool = False, keep: bool = False
) -> Trial | None:
    """What an earlier trial gave, its weights included where they are to be kept."""
    if keep and not kept_weights(run, workspace).is_dir():
        return None
    folder, identity = _place(run, workspace, features)
    try:
        told: dict[str, Any] = json.loads((folder.path / TRIAL).read_text(encoding="utf-8"))
        if told.pop("runhash") != identity:
            return None
        return Trial(**told, known=True)
    except (OSError, ValueError, TypeError, KeyError):  # not tried, or not readable: try it
        return None
