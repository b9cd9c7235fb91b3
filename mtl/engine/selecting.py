"""When a run is evaluated, what its selection compares, and when it has waited long enough."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from mtl.engine.device import Device
from mtl.engine.evaluation import Evaluation, evaluate
from mtl.engine.passes import eval_passes
from mtl.engine.progress import Progress
from mtl.engine.resume import RunState
from mtl.engine.settings import LAST, RunSettings
from mtl.errors import RunError

if TYPE_CHECKING:
    from mtl.engine.loop import Job


def evaluate_and_select(
    job: Job,
    device: Device,
    progress: RunState,
    trainable: Mapping[str, nn.Parameter],
    best: dict[str, torch.Tensor],
    batches: int,
    rate: float,
    bar: Progress,
) -> None:
    """Evaluate on the dev sets, keep the state if it is the best, count patience, log.

    With ``select=last`` the state in training is the one to keep, so no copy is made of any.
    """
    settings = job.settings
    passes = eval_passes(settings, device.torch_device)
    found = {task: evaluate(job.attached, data, device, passes) for task, data in job.dev.items()}
    value = selection_value(found, settings.select)
    # Logits of NaN still have an accuracy, so the loss is looked at whatever selects.
    compared = "loss" if settings.select == LAST else settings.select
    for what, number in ((compared, value), ("loss", selection_value(found, "loss"))):
        if not math.isfinite(number):
            raise RunError(
                f"{job.label}: the dev {what} is {number} after step {progress.step} "
                f"(lr={settings.lr}, seed={job.seed}). Nothing was stored. Try a smaller "
                "--set lr=…."
            )
    old = progress.best_value
    last = settings.select == LAST
    better = old is None or last or (value < old if settings.select == "loss" else value > old)
    if better:
        progress.best_value, progress.best_step = value, progress.step
        progress.waiting, progress.improved = 0, progress.stage_step
        for name, parameter in () if last else trainable.items():
            best[name] = parameter.detach().clone()
    else:
        progress.waiting += 1
        idle = progress.stage_step - progress.improved
        if settings.waited(progress.waiting, idle, batches):
            progress.stopped = "patience"
    single = len(found) == 1
    metrics = {
        name if single else f"{task}/{name}": number
        for task, evaluation in found.items()
        for name, number in evaluation.metrics.items()
    }
    event = {
        "step": progress.step,
        "epoch": round(progress.epoch + progress.batch / max(batches, 1), 4),
        "stage": progress.stage,
        "train_loss": progress.loss_sum / max(progress.loss_count, 1),
        "dev_loss": sum(evaluation.loss for evaluation in found.values()) / len(found),
        "metrics": metrics,
        "lr": rate,
        "best": better,
        "time": time.time(),
    }
    progress.loss_sum, progress.loss_count = 0.0, 0
    if device.main:
        job.folder.add_event(event)
        if job.tracker is not None:
            job.tracker.log(event)
    bar.evaluation(event)


def selection_value(found: Mapping[str, Evaluation], select: str) -> float:
    """What selection compares: the mean dev loss (lower wins), or the mean of a metric (higher).

    Of ``last``, which compares nothing, the dev loss.
    """
    if select in {"loss", LAST}:
        return sum(evaluation.loss for evaluation in found.values()) / len(found)
    values = [
        evaluation.metrics[evaluation.spec.headline if select == "metric" else select]
        for evaluation in found.values()
    ]
    return sum(values) / len(values)


def evaluation_due(settings: RunSettings, progress: RunState, epoch: bool, ended: bool) -> bool:
    if ended:
        return True
    if settings.eval_every:
        return progress.stage_step % settings.eval_every == 0
    return epoch
