"""Store a trained run: write the entry, load it back from disk, repeat the test, record that."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.engine import evaluate
from mtl.engine.device import resolve_precision
from mtl.errors import RunError
from mtl.files import finite
from mtl.zoo import Manifest, write_predictions

if TYPE_CHECKING:
    from mtl.engine import Device, EvalSet, Evaluation, Outcome
    from mtl.tasks import TaskData
    from mtl.train.plan import Built, RunPlan
    from mtl.train.workspace import Workspace
    from mtl.zoo import Entry

PACKAGES = ("mtl", "torch", "adapters", "transformers", "datasets", "tokenizers", "numpy")
TOLERANCE = 1e-3
"""Largest logit difference between the trained and the reloaded model; on a CPU it is 0."""


def store_run(
    plan: RunPlan,
    workspace: Workspace,
    device: Device,
    built: Built,
    outcome: Outcome,
    evaluations: Mapping[str, Evaluation],
    sets: Mapping[str, EvalSet],
) -> Entry:
    """Put the trained run into the zoo and return its entry.

    Raises:
        RunError: the reloaded entry does not answer as the trained model did; the disk is full.
        ZooError: another entry is in the place.
    """
    zoo = workspace.zoo
    ref = plan.ref(zoo)
    with zoo.stage(ref) as folder:
        built.save(folder)
        test = evaluations["test"]
        write_predictions(
            folder, "predictions.safetensors", test.row, test.label, test.prediction, test.scores
        )
        verified = verify(plan, folder, sets["test"], test, device)
        manifest = make_manifest(plan, workspace, device, outcome, evaluations, verified)
        return zoo.commit(folder, ref, manifest)


def verify(
    plan: RunPlan, folder: Path, data: EvalSet, trained: Evaluation, device: Device
) -> dict[str, Any]:
    """Load the entry in ``folder`` into a fresh encoder, repeat the test split, and compare.

    Raises:
        RunError: predictions or logits differ.
    """
    again = plan.build(plan, folder)
    again.network.to(device.torch_device)
    repeated = evaluate(again.attached, data, device, plan.settings.eval_batch_size)
    difference = float(np.max(np.abs(repeated.logits - trained.logits)))
    same = float(np.mean(repeated.prediction == trained.prediction))
    if not difference <= TOLERANCE:
        raise RunError(
            f"{plan.label}: the stored entry does not answer as the trained model did: largest "
            f"logit difference {difference:.3g}, {same:.2%} of {len(trained.prediction)} test "
            "predictions equal. Nothing was stored. This is a defect; please report it with the "
            "run folder's config.json."
        )
    return {
        "split": "test",
        "n": len(trained.prediction),
        "max_logit_difference": difference,
        "equal_predictions": same,
        "metrics": {name: float(value) for name, value in repeated.metrics.items()},
    }


def make_manifest(
    plan: RunPlan,
    workspace: Workspace,
    device: Device,
    outcome: Outcome,
    evaluations: Mapping[str, Evaluation],
    verified: dict[str, Any],
) -> Manifest:
    """The manifest of a finished run."""
    described = device.describe()
    spec = plan.spec
    return Manifest(
        kind=plan.kind,
        weights=plan.weights,
        base=plan.backbone.base.to_dict(),
        task={
            "id": spec.id,
            "suite": spec.suite,
            "name": spec.name,
            "kind": spec.kind,
            "labels": list(spec.labels),
            "metrics": list(spec.metrics),
            "headline": spec.headline,
            "num_outputs": spec.num_outputs,
            "spec": spec.to_dict(),
        },
        suite=plan.suite,
        method=plan.method,
        method_settings=dataclasses.asdict(plan.method_settings),
        run_settings={
            **plan.settings.identity(),
            "precision": resolve_precision(plan.settings.precision),
        },
        seed=plan.seed,
        data={
            "fingerprint": plan.data.fingerprint,
            "splits": dict(plan.data.fingerprints),
            "protocol": plan.data.protocol,
            "sizes": {key: int(value) for key, value in plan.data.sizes.items()},
            "notes": list(plan.data.notes),
            **_few_shot(plan.data),
        },
        head={"design": plan.settings.head, "name": plan.adapter_name},
        placement=plan.placement,
        metrics=finite({split: found.summary() for split, found in evaluations.items()}),
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
        },
        versions=versions(),
        parents=[dict(parent) for parent in plan.parents],
        runhash=plan.runhash,
        command=workspace.command,
        verified=verified,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _few_shot(data: TaskData) -> dict[str, Any]:
    """How the training rows were drawn, and which they are: rows of an official split, from 0."""
    if not data.shots:
        return {}
    train = data.splits["train"]
    drawn = {"shots": data.shots, "draw": data.shot_draw, "split": train.source}
    return {"few_shot": {**drawn, "rows": [int(row) for row in train.rows]}}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            from mtl import __version__

            found[package] = __version__ if package == "mtl" else "unknown"
    return found
