"""A run that is only tried: trained as it would be, judged on dev, not stored.

A choice between runs (of sources, settings) is made by trials. They see the training and dev rows
alone; no test row is read, tokenised or answered.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.engine import EvalSet, Job, RunFolder, evaluate, open_device, train
from mtl.engine.folder import TRIAL
from mtl.engine.passes import eval_passes, piece_overhead
from mtl.errors import HeldError
from mtl.files import write_json

if TYPE_CHECKING:
    from mtl.engine.tracking import Listener
    from mtl.runs.run import Run
    from mtl.runs.workspace import Workspace


@dataclass(frozen=True)
class Trial:
    """What a trial gave.

    Attributes:
        dev, stderr: the headline metric on dev, and its standard error; None where undefined.
        steps: optimiser steps; seconds: of training.
        known: whether it had been tried before.
    """

    dev: float | None
    stderr: float | None
    steps: int
    seconds: float
    known: bool = False


def try_run(run: Run, workspace: Workspace, watch: Listener | None = None) -> Trial:
    """Train ``run`` (of one task) and judge the selected state on dev.

    What was tried is kept beside the resume points (``<runs>/<runhash>/trial.json``): the same
    trial is not made twice, and one that was killed goes on.

    Args:
        watch: is told of every evaluation; what it raises ends the trial.

    Raises:
        MtlError: training failed.
    """
    folder = RunFolder(workspace.runs / run.runhash)
    known = _known(folder, run)
    if known is not None:
        return known
    device = open_device(
        run.settings.precision,
        hidden_size=run.backbone.base.hidden_size,
        deterministic=workspace.deterministic,
    )
    task, data = run.task_id, run.data
    train_rows, dev_rows = (
        EvalSet(data.spec, run.backbone.encode(data, split, workspace.cache))
        for split in ("train", "dev")
    )
    with _held(folder, run):
        known = _known(folder, run)
        if known is not None:  # another process has tried it just now
            return known
        built = run.build(run, None)
        job = Job(
            attached=built.attached,
            feed=run.feed({task: train_rows.encoded}),
            dev={task: dev_rows},
            settings=run.settings,
            seed=run.seed,
            identity=run.runhash,
            folder=folder,
            label=run.label,
            overhead=piece_overhead(
                run.settings, device.torch_device, run.backbone.base.hidden_size
            ),
            tracker=watch,
        )
        outcome = train(job, device)
        passes = eval_passes(run.settings, device.torch_device)
        found = evaluate(built.attached, dev_rows, device, passes).summary()[data.spec.headline]
        told = {
            "dev": found["value"],
            "stderr": found["stderr"],
            "steps": outcome.steps,
            "seconds": outcome.seconds,
        }
        write_json(folder.path / TRIAL, {"runhash": run.runhash, **told})
        folder.clear_state()
    return Trial(**told)


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


def _known(folder: RunFolder, run: Run) -> Trial | None:
    try:
        told: dict[str, Any] = json.loads((folder.path / TRIAL).read_text(encoding="utf-8"))
        if told.pop("runhash") != run.runhash:
            return None
        return Trial(**told, known=True)
    except (OSError, ValueError, TypeError, KeyError):  # not tried, or not readable: try it
        return None
