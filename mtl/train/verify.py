"""Evaluate a stored entry again and compare with what it says about itself.

Three things are compared: the stored predictions with the stored metrics (no model needed), the
data of today with the data of then, and what the loaded entry answers now with what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.engine import EvalSet, evaluate, open_device
from mtl.engine.settings import RunSettings
from mtl.errors import RequestError, RunError
from mtl.tasks import encode, load_task, score
from mtl.train.load import check_base
from mtl.train.store import TOLERANCE
from mtl.train.workspace import load_task_data
from mtl.zoo import read_predictions

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.engine import Attached, Device, Evaluation
    from mtl.tasks import TaskData, TaskSpec
    from mtl.train.workspace import Workspace
    from mtl.zoo import Entry, Predictions, Zoo

Loader = Callable[["Entry", "Zoo", "Backbone"], "Attached"]
"""An entry of some kind as a frozen model that answers ``logits(batch)``."""

METRIC_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Verification:
    """What a repeated evaluation found.

    Attributes:
        n: examples of the test split.
        max_logit_difference: between stored and repeated scores.
        equal_predictions: share of the predictions that are the same.
        metrics: split → metric → ``{"stored", "again"}``.
        problems: what does not agree; empty when the entry is what it says.
    """

    ref: str
    n: int
    max_logit_difference: float
    equal_predictions: float
    metrics: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    problems: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether everything agrees."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {**asdict(self), "problems": list(self.problems), "good": self.good}

    def record(self, device: Device) -> dict[str, Any]:
        """The ``verified`` record of a manifest."""
        return {
            "split": "test",
            "n": self.n,
            "max_logit_difference": self.max_logit_difference,
            "equal_predictions": self.equal_predictions,
            "metrics": {name: value["again"] for name, value in self.metrics["test"].items()},
            "device": device.describe()["device"],
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


def verify_entry(
    entry: Entry,
    workspace: Workspace,
    backbone: Backbone,
    load: Loader,
    *,
    tolerance: float = TOLERANCE,
    record: bool = True,
) -> Verification:
    """Evaluate ``entry`` on its test splits and compare with its predictions and metrics.

    The task is looked up by its id in the catalogue of this machine: what a manifest says about
    where data lie is not followed.

    Args:
        load: makes the model of this kind of entry.
        tolerance: largest difference of a score; 0 holds on the machine that trained the entry.
        record: write the ``verified`` record of the entry if everything agrees.

    Raises:
        RequestError: another base, an unknown task, or data that are not those of the entry.
        ZooError: files of the entry are damaged.
        RunError: the data cannot be read, or the zoo cannot be written.
    """
    zoo, manifest = workspace.zoo, entry.manifest
    check_base(entry, backbone.base)
    zoo.load_check(entry)
    stored = read_predictions(entry.folder)
    spec = load_task(manifest.task["id"])
    data = same_data(entry, spec, workspace)
    problems: list[str] = []
    device = open_device(_precision(entry))
    model = load(entry, zoo, backbone)
    model.network.to(device.torch_device)
    metrics: dict[str, dict[str, dict[str, float | None]]] = {}
    difference, equal = float("inf"), 0.0
    for split in (name for name in manifest.metrics if name.startswith("test")):
        if split not in data.splits:
            problems.append(f"the split {split} of its metrics is not in the data")
            continue
        tokens = encode(data, split, backbone.tokenizer, cache=workspace.cache)
        again = evaluate(
            model, EvalSet(data.spec, tokens), device, _settings(entry).eval_batch_size
        )
        metrics[split] = _metrics(manifest.metrics[split], again.metrics)
        if split == "test":
            wrong, difference, equal = _compare(stored, again, tolerance)
            problems += wrong or _own_metrics(entry, stored, again)
        else:
            problems += _far(split, metrics[split], tolerance)
    if "test" not in metrics:
        problems.append("it has no metrics of the test split")
        metrics.setdefault("test", {})
    found = Verification(entry.ref, len(stored.row), difference, equal, metrics, tuple(problems))
    if found.good and record:
        zoo.record_verified(entry, found.record(device))
    return found


def same_data(entry: Entry, spec: TaskSpec, workspace: Workspace) -> TaskData:
    """The data of the entry's task, if its test splits are those that the entry was tested on.

    Raises:
        RequestError: they are others; says both fingerprints.
    """
    manifest = entry.manifest
    settings = _settings(entry)
    data = load_task_data(spec, workspace, manifest.data["protocol"] or "official", settings)
    splits = manifest.data.get("splits")
    pairs: list[tuple[str, Any, Any]] = [
        ("all splits", manifest.data["fingerprint"], data.fingerprint)
    ]
    if isinstance(splits, dict):
        pairs = [
            (split, value, data.fingerprints.get(split))
            for split, value in splits.items()
            if split.startswith("test")
        ]
    for split, then, now in pairs:
        if then != now:
            raise RequestError(
                f"Cannot verify {entry.ref}: the data of {spec.id} ({split}) have the fingerprint "
                f"{str(now)[:12]}, those of the entry had {str(then)[:12]}. Point --data-root (or "
                "MTL_TASKS) at the data that it was trained with."
            )
    return data


def _settings(entry: Entry) -> RunSettings:
    values = entry.manifest.run_settings
    known = {key: values[key] for key in RunSettings.__dataclass_fields__ if key in values}
    try:
        return RunSettings(**known)
    except TypeError as error:
        raise RequestError(f"{entry.ref}: its run settings cannot be used: {error}.") from error


def _precision(entry: Entry) -> str:
    precision = str(entry.manifest.training["precision"])
    return precision if precision in {"fp32", "bf16"} else "fp32"


def _own_metrics(entry: Entry, stored: Predictions, again: Evaluation) -> list[str]:
    """Whether the stored predictions give the stored metrics, on the rows they are of."""
    try:
        found = score(again.spec, stored.prediction, stored.label, again.table)
    except (RunError, ValueError) as error:
        return [f"its stored predictions cannot be scored: {error}"]
    told = entry.manifest.metrics.get("test", {})
    return [
        f"its stored predictions give {name} {value:.6f}, its manifest says {_text(told[name])}"
        for name, value in found.items()
        if name in told and not _near(told[name]["value"], value, METRIC_TOLERANCE)
    ]


def _compare(
    stored: Predictions, again: Evaluation, tolerance: float
) -> tuple[list[str], float, float]:
    if not np.array_equal(stored.row, again.row):
        message = f"it stores {len(stored.row)} predictions, the test split has {len(again.row)}"
        return [f"{message} rows, or others"], float("inf"), 0.0
    if stored.scores.shape != again.scores.shape:
        shapes = f"{stored.scores.shape}, the model gives {again.scores.shape}"
        return [f"its stored scores have the shape {shapes}"], float("inf"), 0.0
    problems = []
    if not np.allclose(stored.label, again.label, atol=1e-6):
        problems.append("its stored labels are not those of the data")
    gap = np.abs(stored.scores.astype(np.float64) - again.scores)
    difference = float(gap.max()) if gap.size else 0.0
    equal = float(np.mean(stored.prediction == again.prediction)) if again.prediction.size else 1.0
    if not difference <= tolerance:  # NaN is not near
        problems.append(
            f"its scores differ by up to {difference:.3g} (allowed: {tolerance:g}) from the stored "
            f"ones; {equal:.2%} of {len(again.row)} predictions are equal"
        )
    return problems, difference, equal


def _metrics(
    stored: Mapping[str, Any], again: Mapping[str, float]
) -> dict[str, dict[str, float | None]]:
    return {
        name: {"stored": item["value"], "again": again.get(name)} for name, item in stored.items()
    }


def _far(
    split: str, metrics: Mapping[str, Mapping[str, float | None]], tolerance: float
) -> list[str]:
    """A split whose predictions are not stored is compared by its metrics alone."""
    return [
        f"{name} on {split} is {pair['again']}, its manifest says {pair['stored']}"
        for name, pair in metrics.items()
        if not _near(pair["stored"], pair["again"], tolerance)
    ]


def _near(one: float | None, other: float | None, tolerance: float) -> bool:
    if one is None or other is None or not np.isfinite(other):
        return one is None and (other is None or not np.isfinite(other))
    return abs(one - other) <= tolerance


def _text(item: Mapping[str, Any]) -> str:
    return "none" if item["value"] is None else f"{item['value']:.6f}"
