"""Store a trained run: write the entry, load it back from disk, repeat the test, record that.

Predictions, metrics and shares of the entry are those of the reloaded model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.engine import evaluate
from mtl.engine.passes import eval_passes
from mtl.errors import RunError
from mtl.files import finite
from mtl.methods.method import settings_dict
from mtl.runs.recorded import remember_task
from mtl.runs.sections import metric_name, metrics, sections
from mtl.runs.versions import versions
from mtl.tasks.spans import MASKED
from mtl.zoo import Manifest, write_predictions
from mtl.zoo.composition import write_shares
from mtl.zoo.machine import portable_text, remember_command
from mtl.zoo.names import is_safe_name, predictions_file

if TYPE_CHECKING:
    from mtl.engine import Device, EvalSet, Evaluation, Outcome
    from mtl.runs.run import Built, Run
    from mtl.runs.workspace import Workspace
    from mtl.zoo import Entry

TOLERANCE = 1e-3
"""Largest logit difference between the trained and the reloaded model; on a CPU it is 0."""


BF16_SHARE = 2.0**-5
"""The same in bf16, as a share of the largest logit: eight roundings (2⁻⁸) in one direction."""


def tolerance_of(precision: str, scores: np.ndarray) -> float:
    """How far two ways to compute the same ``scores`` may be apart in ``precision``.

    Methods whose stored form multiplies in another order than the trained one (AdaLoRA, VeRA) are
    1e-7 apart in fp32, and in bf16 a rounding of every layer.
    """
    if precision != "bf16":
        return TOLERANCE
    real = np.abs(scores[scores > MASKED])
    return BF16_SHARE * max(1.0, float(real.max()) if real.size else 0.0)


def store_run(
    run: Run,
    workspace: Workspace,
    device: Device,
    built: Built,
    outcome: Outcome,
    evaluations: Mapping[str, Mapping[str, Evaluation]],
    sets: Mapping[str, Mapping[str, EvalSet]],
) -> Entry:
    """Put the trained run into the zoo and return its entry.

    Args:
        evaluations, sets: task → split → what it gave, and what it was.

    Raises:
        RunError: the reloaded entry does not answer as the trained model did; the disk is full.
        ZooError: another entry is in the place.
    """
    zoo = workspace.zoo
    ref = run.ref(zoo)
    with zoo.stage(ref) as folder:
        built.save(folder)
        again = run.build(run, folder)
        again.network.to(device.torch_device)
        repeated = repeat(run, again, sets, device)
        shares = again.shares() if again.shares is not None else None
        if shares is not None:
            write_shares(folder, shares)
        tests = {task: found["test"] for task, found in repeated.items()}
        trained = {task: found["test"] for task, found in evaluations.items()}
        data = {task: splits["test"] for task, splits in sets.items()}
        verified = compare(run, trained, tests, data, device, (built, again))
        # An entry says what it answers itself: the model in training may sum in another order.
        whole = {task: {**found, **repeated[task]} for task, found in evaluations.items()}
        for task, splits in repeated.items():
            for split, found in splits.items():
                file = predictions_file(split, task if run.joint else "")
                if is_safe_name(f"predictions-{split}"):  # else its metrics have to do
                    write_predictions(
                        folder, file, found.row, found.label, found.prediction, found.scores
                    )
        manifest = make_manifest(run, workspace, device, outcome, whole, verified)
        entry = zoo.commit(folder, ref, manifest)
    remember_command(run.runhash, workspace.typed)
    for task_data in run.datas.values():
        remember_task(task_data, workspace)
    return entry


def repeat(
    run: Run, again: Built, sets: Mapping[str, Mapping[str, EvalSet]], device: Device
) -> dict[str, dict[str, Evaluation]]:
    """What the reloaded model answers on dev and all test splits of ``sets``."""
    device = device.alone()  # only the first process stores; the others do not come here
    passes = eval_passes(run.settings, device.torch_device)
    return {
        task: {
            # dev last: what is constant over it is asked of the model afterwards
            split: evaluate(again.attached, splits[split], device, passes)
            for split in sorted(splits, key=lambda name: name == "dev")
            if split != "train"
        }
        for task, splits in sets.items()
    }


def compare(
    run: Run,
    trained: Mapping[str, Evaluation],
    repeated: Mapping[str, Evaluation],
    data: Mapping[str, EvalSet],
    device: Device,
    models: tuple[Built, Built],
) -> dict[str, Any]:
    """The ``verified`` record of a new entry.

    Where bf16 roundings alone could be what differs, both models are compared in fp32, too, where
    they must agree as closely as fp32 runs do.

    Args:
        trained, repeated: task → what the trained model, and the reloaded one, answered on test.
        data: task → its test split.
        models: the trained and the reloaded model.

    Raises:
        RunError: logits differ.
    """
    n = sum(len(found.prediction) for found in trained.values())
    equal = 0.0
    largest = 0.0
    for task, found in trained.items():
        difference = float(np.max(np.abs(repeated[task].logits - found.logits)))
        same = float(np.mean(repeated[task].prediction == found.prediction))
        good = difference <= tolerance_of(device.precision, found.logits)
        if good and difference > TOLERANCE:
            exact = replace(device.alone(), precision="fp32")
            passes = eval_passes(run.settings, device.torch_device)
            pair = [evaluate(m.attached, data[task], exact, passes).logits for m in models]
            good = float(np.max(np.abs(pair[0] - pair[1]))) <= TOLERANCE
        if not good:
            raise RunError(
                f"{run.label}: the stored entry does not answer as the trained model did: largest "
                f"logit difference {difference:.3g} on {task}, {same:.2%} of "
                f"{len(found.prediction)} test predictions equal. Nothing was stored. This is a "
                "defect; please report it with the run folder's config.json."
            )
        largest = max(largest, difference)
        equal += same * len(found.prediction)
    return {
        "split": "test",
        "n": n,
        "max_logit_difference": largest,
        "equal_predictions": equal / n,
        "metrics": {
            metric_name(run, task, name): float(value)
            for task, found in repeated.items()
            for name, value in found.metrics.items()
        },
    }


def _mirrored(run: Run) -> bool:
    """Whether some data are of the Hub, and a local mirror of it would be read instead."""
    return any("repo" in data.spec.data for data in run.datas.values())


def make_manifest(
    run: Run,
    workspace: Workspace,
    device: Device,
    outcome: Outcome,
    evaluations: Mapping[str, Mapping[str, Evaluation]],
    verified: dict[str, Any],
) -> Manifest:
    """The manifest of a finished run."""
    described = device.describe()
    passes = eval_passes(run.settings, device.torch_device)
    return Manifest(
        kind=run.kind,
        weights=run.weights,
        base=run.backbone.base.to_dict(),
        suite=run.suite,
        method=run.method,
        method_settings=settings_dict(run.method_settings),
        run_settings=run.run_settings(),
        seed=run.seed,
        placement=run.placement,
        metrics=finite(metrics(run, evaluations)),
        training={
            "steps": outcome.steps,
            "epochs": outcome.epochs,
            "best_step": outcome.best_step,
            "best_value": outcome.best_value,
            "selected_by": outcome.selected_by,
            "stopped": outcome.stopped,
            "seconds": outcome.seconds,
            "trainable_parameters": outcome.trainable,
            "device": described["device"],
            "precision": described["precision"],
            "threads": described["threads"],
            "processes": described["processes"],
            # no part of what was trained, but the last digits of the answers depend on it
            "eval_batch_size": passes.rows,
            "eval_tokens": passes.tokens,
            **finite(dict(run.told)),
        },
        versions=versions(run),
        parents=[dict(parent) for parent in run.parents],
        runhash=run.runhash,
        command=portable_text(workspace.typed, mirror=_mirrored(run)),
        verified=verified,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **sections(run),
    )
