"""Tasks of a study to their ends, one by itself or several side by side: what a worker does."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mtl.engine.folder import RunFolder
from mtl.engine.progress import listener, listening
from mtl.errors import HeldError, MtlError, RunError
from mtl.runs.running import execute, find_done, hold
from mtl.study.trials import carry_out, plan_trials
from mtl.study.work import Desk, Outcome, Task, among, plan_cell

if TYPE_CHECKING:
    from mtl.runs import Run
    from mtl.runs.beside import Held
    from mtl.zoo import Entry

Holding = Callable[["Run"], AbstractContextManager[object]]
"""What is held while a run goes on, beside the lock of its folder."""


def unheld(run: Run) -> AbstractContextManager[object]:
    """Nothing beside the lock of its folder keeps others from a run."""
    return nullcontext()


def execute_task(
    task: Task,
    desk: Desk,
    say: Callable[[str], None] = lambda text: None,
    holding: Holding = unheld,
) -> Outcome:
    """Run one task to its entry in the zoo; whatever goes wrong is in the outcome.

    Args:
        say: takes remarks.
        holding: is held while the run goes on, beside the lock of its folder.
    """
    runhash = task.runhash
    try:
        if task.cell.search is not None:
            return _search(task, desk, say, holding)
        chosen_among = among(task.cell, desk)
        run = plan_cell(task.cell, desk, dry_run=False)
        _check_planned(task, run.runhash)
        runhash = run.runhash
        with holding(run):
            report = execute(run, desk.context(task.cell).workspace)
    except Exception as error:  # one run's defect is not the others'
        return _failure(task, runhash, error)
    assert report.entry is not None
    found = _stored(task, report.status, runhash, report.entry, desk, say)
    return replace(found, told={**found.told, "among": chosen_among}) if chosen_among else found


def execute_beside(
    tasks: Sequence[Task],
    desk: Desk,
    ended: Callable[[Outcome], object],
    step: Callable[[str, int, int], object] = lambda key, done, total: None,
    say: Callable[[str], None] = lambda text: None,
    holding: Holding = unheld,
) -> None:
    """Run tasks whose runs fit to their entries, side by side on one encoder.

    Each holds its own run, has an outcome of its own, and lets its run go when that is there. Where
    they cannot go together, those that are left end ``apart`` or ``unfit``.

    Args:
        ended: told the outcome of each as soon as it is known.
        step: told of steps: the task's key, steps done, and planned.
        say, holding: as in :func:`execute_task`.
    """
    mine: dict[str, tuple[Task, Held, ExitStack]] = {}
    alone: list[Task] = []
    with ExitStack() as everything:
        for task in tasks:
            own = everything.enter_context(ExitStack())
            try:
                held = _take(task, desk, own, holding)
            except Exception as error:
                own.close()
                ended(_failure(task, task.runhash, error))
                continue
            if held is None:  # done meanwhile: that is found again below
                alone.append(task)
            else:
                mine[task.key] = (task, held, own)
        if len(mine) > 1:
            _carry_out(mine, desk, ended, step, say)
        else:
            alone += [task for task, _, _ in mine.values()]
    for task in alone:
        with listening(partial(step, task.key)):
            ended(execute_task(task, desk, say, holding))


def _take(task: Task, desk: Desk, own: ExitStack, holding: Holding) -> Held | None:
    """The run of a task, held until ``own`` is closed; None: it is done. Raises MtlError."""
    run = plan_cell(task.cell, desk, dry_run=False)
    _check_planned(task, run.runhash)
    workspace = desk.context(task.cell).workspace
    if find_done(run, workspace) is not None:
        return None
    own.enter_context(holding(run))
    folder = RunFolder(workspace.runs / run.runhash)
    told = hold(run, workspace, folder, own)
    if isinstance(told, RunError):
        raise told
    if told:
        own.close()
        return None
    return run, folder, workspace


def _carry_out(
    mine: dict[str, tuple[Task, Held, ExitStack]],
    desk: Desk,
    ended: Callable[[Outcome], object],
    step: Callable[[str, int, int], object],
    say: Callable[[str], None],
) -> None:
    """Train the runs together; tell of each, and let go of it."""
    from mtl.backbone.beside import UnfitError
    from mtl.engine import open_device
    from mtl.runs.beside import carry_out_beside

    keys, left = list(mine), dict(mine)
    run, _, workspace = mine[keys[0]][1]
    device = open_device(
        run.settings.precision,
        hidden_size=run.backbone.base.hidden_size,
        deterministic=workspace.deterministic,
    )

    def over(place: int, what: Entry | MtlError) -> None:
        task, (run, _, _), own = left.pop(keys[place])
        if isinstance(what, MtlError):
            outcome = _failure(task, run.runhash, what)
        else:
            outcome = _stored(task, "done", run.runhash, what, desk, say)
        own.close()
        ended(outcome)

    def stepped(place: int, done: int, total: int) -> None:
        step(keys[place], done, total)

    try:
        carry_out_beside([held for _, held, _ in mine.values()], device, over, stepped)
        return
    except UnfitError as error:
        status, why = "unfit", str(error)
    except Exception as error:  # a defect of one, or of all: each says it by itself
        status, why = "apart", f"{type(error).__name__}: {error}"
    say(f"note: {len(left)} runs of {run.method} go one by one, not side by side: {why}.")
    for task, _, own in left.values():
        own.close()
        ended(Outcome(task.key, status, task.runhash, why))


def _failure(task: Task, runhash: str | None, error: Exception) -> Outcome:
    """The outcome of what went wrong."""
    if isinstance(error, MtlError):
        status = "held" if isinstance(error, HeldError) else "failed"
        return Outcome(task.key, status, runhash, str(error))
    text = f"{task.cell.label}: {type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    return Outcome(task.key, "failed", runhash, text, trace=trace)


def _stored(
    task: Task,
    status: str,
    runhash: str | None,
    entry: Entry,
    desk: Desk,
    say: Callable[[str], None],
) -> Outcome:
    """The outcome of what is in the zoo, which the graph learns of."""
    from mtl.graph.opening import adding_evidence

    adding_evidence(desk.workspace.zoo, None, say)(entry)
    return Outcome(task.key, status, runhash, told=told_of(entry))


def _search(
    task: Task,
    desk: Desk,
    say: Callable[[str], None],
    holding: Holding,
) -> Outcome:
    trials = plan_trials(task.cell, desk)
    _check_planned(task, trials.identity)
    with holding(trials.plain):
        told = carry_out(task.cell, trials, desk, listener(), say)
    return Outcome(task.key, "done", trials.identity, told=told)


def _check_planned(task: Task, found: str) -> None:
    if task.runhash not in (None, found):
        raise RunError(
            f"{task.cell.label}: this worker plans the run {found[:8]}, the study planned "
            f"{str(task.runhash)[:8]}: task files, data, base or mtl changed meanwhile, or differ "
            "between machines. Start the study again."
        )


def told_of(entry: Entry) -> dict[str, Any]:
    """What tables show of an entry."""
    manifest = entry.manifest
    headline = manifest.task["headline"]
    values = {split: manifest.metrics[split][headline]["value"] for split in ("dev", "test")}
    return {
        "ref": entry.ref,
        "digest": entry.digest,
        "metric": headline,
        **values,
        "steps": manifest.training["steps"],
        "seconds": manifest.training["seconds"],
        "threads": manifest.training["threads"],
        **{key: manifest.training[key] for key in ("side_by_side",) if key in manifest.training},
    }
