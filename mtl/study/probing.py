"""Two steps of a run, timed: what a bill goes by where no finished run tells."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.engine import Device, Job, RunFolder, evaluate, open_device, train
from mtl.engine.passes import eval_passes, piece_overhead
from mtl.engine.progress import listening
from mtl.errors import RunError
from mtl.runs.executing import encode_splits

if TYPE_CHECKING:
    from mtl.runs import Run
    from mtl.study.planning import Node, StudyPlan

STEPS = 2


def probe(node: Node, plan: StudyPlan) -> float | None:
    """Seconds per step of a run and of its share of the evaluations; None where it fails.

    ``t = t₂ + t_dev / steps between evaluations``, with t₂ the second step, which no longer pays
    for what the first one sets up. Nothing of it is kept.
    """
    run = node.run
    assert run is not None
    device = open_device(run.settings.precision, hidden_size=run.backbone.base.hidden_size)
    try:
        return _probe(run, plan, device)
    except RunError:  # the run itself will say it
        return None


def _probe(run: Run, plan: StudyPlan, device: Device) -> float:
    sets = encode_splits(run, plan.desk.workspace)
    built = run.build(run, None)
    dev = {task: sets[task]["dev"] for task in run.selected}
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            attached=built.attached,
            feed=run.feed({task: splits["train"].encoded for task, splits in sets.items()}),
            dev=dev,
            settings=replace(run.settings, max_steps=STEPS, eval_every=STEPS, patience=0),
            seed=run.seed,
            identity=run.runhash,
            folder=RunFolder(Path(folder)),
            label=run.label,
            overhead=piece_overhead(
                run.settings, device.torch_device, run.backbone.base.hidden_size
            ),
        )
        with listening(lambda done, total: ends.append(time.perf_counter())):
            train(job, device)
    began = time.perf_counter()
    passes = eval_passes(run.settings, device.torch_device)
    for found in dev.values():
        evaluate(built.attached, found, device, passes)
    evaluation = time.perf_counter() - began
    steps = run.planned_steps
    every = run.settings.eval_every or max(1, steps // max(1, run.settings.epochs))
    step = ends[1] - ends[0] if len(ends) > 1 else 0.0
    return step + evaluation / every
