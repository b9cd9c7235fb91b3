"""A run that is only tried: trained as it would be, judged on dev, not stored.

A choice between runs (of sources, settings) is made by trials. They see the training and dev rows
alone; no test row is read, tokenised or answered.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.engine import EvalSet, Job, RunFolder, evaluate, open_device, train
from mtl.engine.folder import TRIAL
from mtl.engine.passes import eval_passes, piece_overhead
from mtl.engine.weighting import loss_weights
from mtl.errors import HeldError
from mtl.files import sha256_json, write_json

if TYPE_CHECKING:
    from mtl.engine import Device, Trainable
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
        watch: is told of every evaluation; what it raises ends the trial.
        features: train a head on features that are computed once
            (:mod:`mtl.runs.fixed_features`), where nothing but a head trains.
        keep: write the weights, too, as in an entry, into :func:`kept_weights`.

    Raises:
        MtlError: training failed.
    """
    identity = sha256_json({"of": run.runhash, "on": "features"}) if features else run.runhash
    folder = RunFolder(workspace.runs / identity)

    def tried_before() -> Trial | None:
        kept = not keep or kept_weights(run, workspace).is_dir()
        return _known(folder, identity) if kept else None

    known = tried_before()
    if known is not None:
        return known
    device = open_device(
        run.settings.precision,
        hidden_size=run.backbone.base.hidden_size,
        deterministic=workspace.deterministic,
    )
    data = run.data
    rows: dict[str, Any] = {
        split: run.backbone.encode(data, split, workspace.cache) for split in ("train", "dev")
    }
    with _held(folder, run):
        known = tried_before()
        if known is not None:  # another process has tried it just now
            return known
        built = run.build(run, None)
        attached = built.attached
        if features:
            from mtl.runs.fixed_features import head_alone, vectors

            rows = {split: vectors(run, built, rows[split], device) for split in rows}
            attached = head_alone(run, built)
        told = _train_and_judge(run, attached, rows, device, folder, identity, watch)
        if keep:
            target = kept_weights(run, workspace)
            shutil.rmtree(target, ignore_errors=True)  # half of one, of a search that was killed
            target.mkdir(parents=True)
            built.save(target)
        write_json(folder.path / TRIAL, {"runhash": identity, **told})
        folder.clear_state()
    return Trial(**told)


def kept_weights(run: Run, workspace: Workspace) -> Path:
    """Where a trial that keeps its weights leaves them."""
    return workspace.runs / run.runhash / "weights"


def _train_and_judge(
    run: Run,
    attached: Trainable,
    rows: Mapping[str, Any],
    device: Device,
    folder: RunFolder,
    identity: str,
    watch: Listener | None,
) -> dict[str, Any]:
    """Train on ``rows["train"]``; the fields of a :class:`Trial` by ``rows["dev"]``."""
    spec, settings = run.spec, run.settings
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
    outcome = train(job, device)
    passes = eval_passes(settings, device.torch_device)
    found = evaluate(attached, dev, device, passes).summary()[spec.headline]
    return {
        "dev": found["value"],
        "stderr": found["stderr"],
        "steps": outcome.steps,
        "seconds": outcome.seconds,
    }


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


def _known(folder: RunFolder, identity: str) -> Trial | None:
    try:
        told: dict[str, Any] = json.loads((folder.path / TRIAL).read_text(encoding="utf-8"))
        if told.pop("runhash") != identity:
            return None
        return Trial(**told, known=True)
    except (OSError, ValueError, TypeError, KeyError):  # not tried, or not readable: try it
        return None
