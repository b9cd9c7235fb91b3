"""One task of a study to its end: what every worker does."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from mtl.engine.progress import listener
from mtl.errors import HeldError, MtlError, RunError
from mtl.study.trials import carry_out, plan_trials
from mtl.study.work import Desk, Outcome, Task, among, plan_cell

if TYPE_CHECKING:
    from mtl.runs import Run
    from mtl.zoo import Entry


def unheld(run: Run) -> AbstractContextManager[object]:
    """Nothing beside the lock of its folder keeps others from a run."""
    return nullcontext()


def execute_task(
    task: Task,
    desk: Desk,
    say: Callable[[str], None] = lambda text: None,
    holding: Callable[[Run], AbstractContextManager[object]] = unheld,
) -> Outcome:
    """Run one task to its entry in the zoo; whatever goes wrong is in the outcome.

    Args:
        say: takes remarks.
        holding: is held while the run goes on, beside the lock of its folder.
    """
    from mtl.graph.opening import adding_evidence
    from mtl.runs.running import execute

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
    except MtlError as error:
        status = "held" if isinstance(error, HeldError) else "failed"
        return Outcome(task.key, status, runhash, str(error))
    except Exception as error:  # one run's defect is not the others'
        text = f"{task.cell.label}: {type(error).__name__}: {error}"
        return Outcome(task.key, "failed", runhash, text, trace=traceback.format_exc())
    assert report.entry is not None
    adding_evidence(desk.workspace.zoo, None, say)(report.entry)
    told = told_of(report.entry) | ({"among": chosen_among} if chosen_among else {})
    return Outcome(task.key, report.status, runhash, told=told)


def _search(
    task: Task,
    desk: Desk,
    say: Callable[[str], None],
    holding: Callable[[Run], AbstractContextManager[object]],
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
    }
