"""One run from its plan to its entry: encode, train, test, store."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mtl.engine import Device, EvalSet, Evaluation, Job, Outcome, RunFolder, evaluate, train
from mtl.engine.passes import eval_passes, piece_overhead
from mtl.engine.tracking import Tracker, tracking
from mtl.engine.weighting import loss_weights
from mtl.methods.method import settings_dict
from mtl.runs.standing import standing
from mtl.runs.store import store_run
from mtl.words import printable_lines

if TYPE_CHECKING:
    from mtl.runs.run import Built, Run
    from mtl.runs.workspace import Workspace
    from mtl.zoo import Entry


@dataclass(frozen=True)
class Prepared:
    """A run that is about to train: its model, its splits, and what the engine is given."""

    run: Run
    folder: RunFolder
    built: Built
    sets: Mapping[str, Mapping[str, EvalSet]]
    job: Job


def carry_out(run: Run, workspace: Workspace, device: Device, folder: RunFolder) -> Entry | None:
    """Train, test and store a run, from its resume point where there is one.

    Returns:
        The entry, in the process that stored it; None in the others.
    """
    with tracked(run, workspace) as tracker:
        prepared = prepare(run, workspace, device, folder, tracker)
        outcome = train(prepared.job, device)
    return finish(prepared, workspace, device, outcome)


def prepare(
    run: Run, workspace: Workspace, device: Device, folder: RunFolder, tracker: Tracker | None
) -> Prepared:
    """Say in the run's folder what runs, encode its data and build its model."""
    if device.main:
        folder.write_config({"runhash": run.runhash, "command": workspace.typed, **run.identity()})
        _warn_of_blanks(run)
    sets = encode_splits(run, workspace)
    built = run.build(run, None)
    width = run.backbone.base.hidden_size
    weights = loss_weights(run.settings, {task: splits["train"] for task, splits in sets.items()})
    job = Job(
        attached=built.attached,
        feed=run.feed({task: splits["train"].encoded for task, splits in sets.items()}),
        dev={task: replace(sets[task]["dev"], weights=weights.get(task)) for task in run.selected},
        settings=run.settings,
        seed=run.seed,
        identity=run.runhash,
        folder=folder,
        label=run.label,
        overhead=piece_overhead(run.settings, device.torch_device, width),
        tracker=tracker,
        class_weights=weights,
    )
    return Prepared(run, folder, built, sets, job)


def finish(
    prepared: Prepared,
    workspace: Workspace,
    device: Device,
    outcome: Outcome,
    told: Mapping[str, Any] | None = None,
) -> Entry | None:
    """Test and store a run that is trained.

    Args:
        told: what else the manifest's ``training`` says.

    Returns:
        As :func:`carry_out`.
    """
    run, folder, sets = prepared.run, prepared.folder, prepared.sets
    evaluations = evaluate_splits(run, prepared.built, sets, device)
    entry = None
    if device.main:
        _warn_of_selection(run, evaluations)
        beside = standing(run, workspace, device, sets, evaluations, folder.read_events())
        run = replace(run, told={**run.told, **beside, **(told or {})})
        entry = store_run(run, workspace, device, prepared.built, outcome, evaluations, sets)
        folder.write_result(
            {"ref": entry.ref, "digest": entry.digest, "metrics": entry.manifest.metrics}
        )
        folder.clear_state()
    device.accelerator.wait_for_everyone()
    return entry


def tracked(run: Run, workspace: Workspace) -> AbstractContextManager[Tracker | None]:
    """The tracker that the workspace names, for this run; None where it names none."""
    settings = {
        "base": run.backbone.base.slug,
        "task": run.task_id,
        "method": run.method,
        "seed": run.seed,
        "settings": settings_dict(run.method_settings),
        "run": run.settings.identity(),
    }
    name = f"{run.task_id}/{run.method}/seed{run.seed}-{run.runhash[:8]}"
    return tracking(
        workspace.track, workspace.runs, name, run.runhash, settings, workspace.track_group
    )


def encode_splits(run: Run, workspace: Workspace) -> dict[str, dict[str, EvalSet]]:
    """All splits of every task, tokenised (from the cache where they are there)."""
    return {
        task: {
            split: EvalSet(data.spec, run.backbone.encode(data, split, workspace.cache))
            for split in data.splits
        }
        for task, data in run.datas.items()
    }


def evaluate_splits(
    run: Run, built: Built, sets: Mapping[str, Mapping[str, EvalSet]], device: Device
) -> dict[str, dict[str, Evaluation]]:
    """Evaluations of dev and of every test split of every task."""
    passes = eval_passes(run.settings, device.torch_device)
    return {
        task: {
            split: evaluate(built.attached, data, device, passes)
            for split, data in splits.items()
            if split != "train"
        }
        for task, splits in sets.items()
    }


def _warn_of_blanks(run: Run) -> None:
    """Say so where training rows have no text: they are trained on as empty ones."""
    for task, data in run.datas.items():
        blank, rows = data.splits["train"].blank(), len(data.splits["train"])
        if blank:
            print(
                printable_lines(
                    f"warning: {run.label}: {blank:,} of {rows:,} training rows of {task} have no "
                    "text at all; a check of the task names them."
                ),
                file=sys.stderr,
            )


def _warn_of_selection(run: Run, evaluations: Mapping[str, Mapping[str, Evaluation]]) -> None:
    """Say so where the state was selected by a dev metric that is undefined or degenerate."""
    if run.settings.select != "metric":
        return
    for task in run.selected:
        found = evaluations[task]["dev"]
        name = found.spec.headline
        why = found.summary()[name]["caveat"]
        if why:
            print(
                printable_lines(
                    f"warning: {run.label}: the state was selected by dev {name} of {task}, which "
                    f"says less than it seems ({why}); --set select=loss goes by the dev loss."
                ),
                file=sys.stderr,
            )
