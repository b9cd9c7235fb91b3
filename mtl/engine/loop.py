"""The training loop: steps, evaluations, selection, early stopping, resume.

Read :func:`train` from top to bottom; it is the whole story of a run. Everything the loop knows is
in :class:`~mtl.engine.resume.RunState` (numbers) and in tensors, and both go into every resume
point, so that a run killed anywhere and started again gives the result of an unbroken one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from mtl.backbone.draws import one_step
from mtl.data import cut
from mtl.engine.attached import Stage, Trainable, trainable_parameters
from mtl.engine.device import Device, seed_everything
from mtl.engine.evaluation import EvalSet, Evaluation, evaluate
from mtl.engine.feed import Feed, to_device
from mtl.engine.folder import RunFolder
from mtl.engine.optimise import Optimiser
from mtl.engine.passes import eval_passes
from mtl.engine.progress import Progress
from mtl.engine.resume import RunState, load_point, save_point
from mtl.engine.settings import LAST, RunSettings
from mtl.engine.tracking import Listener
from mtl.errors import RequestError, RunError


@dataclass(frozen=True)
class Job:
    """A run, ready to train.

    Attributes:
        attached: what trains.
        feed: its training batches.
        dev: task id → the set that selection looks at (the mean over tasks, where several).
        settings, seed: of the run; ``identity`` is its hash, checked on resuming.
        folder: where events and the resume point go.
        label: what progress shows.
        overhead: what one more pass for a part of a batch costs, in tokens.
        tracker: is told of every evaluation.
        class_weights: task → (C,) weights of its classes in the loss; those of no task, none.
    """

    attached: Trainable
    feed: Feed
    dev: Mapping[str, EvalSet]
    settings: RunSettings
    seed: int
    identity: str
    folder: RunFolder
    label: str
    overhead: float = math.inf
    tracker: Listener | None = None
    class_weights: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How training went. The attached model holds the selected state when :func:`train` returns.

    Attributes:
        steps, epochs: that were done (a partial epoch counts as the fraction done).
        best_step, best_value: of the selected evaluation; ``selected_by`` says by what. Where
            nothing selects (``select=last``): the last step, and the dev loss after it.
        stopped: what ended the last stage, ``planned`` or ``patience``.
        seconds: of training and evaluations, over all pieces of a resumed run.
        trainable: number of trainable parameters.
    """

    steps: int
    epochs: float
    best_step: int
    best_value: float
    selected_by: str
    stopped: str
    seconds: float
    trainable: int


def train(job: Job, device: Device) -> Outcome:
    """Train ``job`` from the start or from its resume point, and leave the selected state loaded.

    Raises:
        RunError: a loss that is not finite; a damaged resume point; a disk that is full.
    """
    clock = _Clock()
    weights = {task: each.to(device.torch_device) for task, each in job.class_weights.items()}
    job = replace(job, class_weights=weights)  # there once, and not with every batch
    attached, settings = job.attached, job.settings
    attached.network.to(device.torch_device)
    trainable = trainable_parameters(attached)
    stages = list(attached.stages(settings))
    best: dict[str, torch.Tensor] = {}
    progress = RunState(job.identity)
    seed_everything(job.seed, "train", device.rank)
    resumed = load_point(job, trainable, device)
    optimiser_state: dict[str, torch.Tensor] | None = None
    if resumed is not None:
        progress, best, optimiser_state = resumed
        clock = _Clock(progress.seconds)
    attached.network.train()
    if job.tracker is not None and device.main:
        job.tracker.begin(progress.step)

    fresh = resumed is None
    while True:
        if progress.stopped:
            if progress.stage + 1 == len(stages):
                break
            progress.stage, progress.stage_step = progress.stage + 1, 0
            progress.waiting, progress.improved, progress.stopped = 0, 0, ""
            optimiser_state, fresh = None, True
        stage = stages[progress.stage]
        if fresh and stage.forget:
            progress.best_value, progress.best_step = None, 0
            best.clear()
        if stage.begin is not None:
            stage.begin(fresh)
        order = job.feed.order(progress.epoch)
        planned = _planned_steps(stage, settings, len(order))
        optimiser = Optimiser(_groups_of(attached, stage), settings, planned, stage.lr_factor)
        _set_training(trainable, optimiser.parameters)
        if optimiser_state is not None:
            optimiser.load_state(optimiser_state)
            optimiser_state = None
        bar = Progress(job.label, planned, progress.stage_step, shown=device.main)
        watch = _LossWatch(job, device, progress)
        try:
            while progress.stage_step < planned and not progress.stopped:
                task, rows = order[progress.batch]
                watch.add(_step(job, device, optimiser, progress.stage_step, task, rows))
                attached.after_step(progress.step)
                optimiser.clear()
                bar.step()
                progress.step += 1
                progress.stage_step += 1
                progress.batch += 1
                epoch_ended = progress.batch == len(order)
                if epoch_ended:
                    progress.epoch, progress.batch = progress.epoch + 1, 0
                    order = job.feed.order(progress.epoch)
                ended = progress.stage_step == planned
                evaluated = _evaluation_due(settings, progress, epoch_ended, ended)
                if evaluated:
                    watch.flush()
                    rate = optimiser.rate(progress.stage_step - 1)
                    _evaluate_and_select(
                        job, device, progress, trainable, best, len(order), rate, bar
                    )
                # Several processes agree on the clock of the first, and only at evaluations.
                due = clock.point_due() if device.world == 1 or evaluated else False
                if device.world > 1 and evaluated:
                    due = device.gather(due)[0]
                if due:
                    watch.flush()
                    progress.seconds = clock.elapsed()
                    save_point(job, progress, trainable, best, optimiser, device)
        finally:
            bar.close()
        progress.stopped = progress.stopped or "planned"

    with torch.no_grad():
        for name, value in best.items():
            trainable[name].copy_(value)
    progress.seconds = clock.elapsed()
    # From here on a kill costs no training: the point says that it ended, and holds the best.
    save_point(job, progress, trainable, best, None, device)
    attached.finish()
    attached.network.eval()
    batches = len(job.feed.order(0))
    return Outcome(
        steps=progress.step,
        epochs=round(progress.epoch + progress.batch / max(batches, 1), 4),
        best_step=progress.best_step,
        best_value=float("nan") if progress.best_value is None else progress.best_value,
        selected_by="last step" if settings.select == LAST else f"dev {settings.select}",
        stopped=progress.stopped,
        seconds=round(progress.seconds, 3),
        trainable=sum(parameter.numel() for parameter in trainable.values()),
    )


def _step(
    job: Job, device: Device, optimiser: Optimiser, step: int, task: str, rows: Any
) -> torch.Tensor:
    """One optimiser step on ``rows``; returns the batch's mean loss, still on the device.

    The batch is dealt to processes and cut into pieces of like length; each piece's mean loss is
    weighted by its share of the rows, so the gradient is that of the whole batch.
    """
    own = rows[device.rank :: device.world]
    total = torch.zeros((), device=device.torch_device)
    more = {"class_weights": job.class_weights[task]} if task in job.class_weights else {}
    with one_step():
        for places in _pieces(job, task, own):
            piece = own[places]
            batch = to_device({**job.feed.collate(task, piece), **more}, device.torch_device)
            with device.autocast():
                parts = job.attached.loss(batch)
            loss = torch.stack([part.float() for part in parts.values()]).sum()
            loss = loss * (len(piece) / len(rows))
            loss.backward()
            total += loss.detach()
    device.reduce_gradients(optimiser.parameters)
    if job.settings.clip:
        nn.utils.clip_grad_norm_(optimiser.parameters, job.settings.clip)
    optimiser.step(step)
    return total


def _pieces(job: Job, task: str, rows: Any) -> Sequence[Any]:
    """Places in ``rows`` of what goes through the network together."""
    overhead = math.inf if job.attached.whole_batches else job.overhead
    most = job.settings.micro_batch_size
    if math.isinf(overhead):  # one pass, or passes of `most` rows in their order
        size = max(most or len(rows), 1)
        return [slice(start, start + size) for start in range(0, len(rows), size)]
    return cut(job.feed.tokens(task, rows), overhead, most)


class _LossWatch:
    """Collects losses and stops the run at one that is not finite.

    Reading a loss makes a GPU wait, so there losses are read some steps later, and always before
    anything is evaluated or stored.
    """

    def __init__(self, job: Job, device: Device, progress: RunState) -> None:
        self._job, self._device, self._progress = job, device, progress
        self._every = 1 if device.torch_device.type == "cpu" else 50
        self._pending: list[torch.Tensor] = []

    def add(self, loss: torch.Tensor) -> None:
        self._pending.append(loss)
        if len(self._pending) >= self._every:
            # `add` runs before the step counter moves on
            self._read(self._progress.step)

    def flush(self) -> None:
        self._read(self._progress.step - 1)

    def _read(self, last_step: int) -> None:
        if not self._pending:
            return
        values = torch.stack(self._pending)
        if self._device.world > 1:
            values = self._device.accelerator.reduce(values, reduction="sum")
        first = last_step - len(self._pending) + 1
        for offset, value in enumerate(values.tolist()):
            if not math.isfinite(value):
                settings = self._job.settings
                exact = ", or --set precision=fp32" if self._device.precision != "fp32" else ""
                raise RunError(
                    f"{self._job.label}: the training loss became {value} at step {first + offset}"
                    f" (lr={settings.lr}, batch_size={settings.batch_size}, precision="
                    f"{self._device.precision}, clip={settings.clip}, seed={self._job.seed}). "
                    f"Nothing was stored. Try a smaller --set lr=…{exact}."
                )
            self._progress.loss_sum += value
            self._progress.loss_count += 1
        self._pending.clear()


def _evaluate_and_select(
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


def _evaluation_due(settings: RunSettings, progress: RunState, epoch: bool, ended: bool) -> bool:
    if ended:
        return True
    if settings.eval_every:
        return progress.stage_step % settings.eval_every == 0
    return epoch


def _planned_steps(stage: Stage, settings: RunSettings, batches: int) -> int:
    if stage.epochs is None and settings.max_steps:
        return settings.max_steps
    return (stage.epochs or settings.epochs) * batches


def _groups_of(attached: Trainable, stage: Stage) -> Sequence[Any]:
    groups = attached.groups()
    if stage.train is None:
        return groups
    return [group for group in groups if group.name in stage.train]


def _set_training(trainable: Mapping[str, nn.Parameter], used: Sequence[nn.Parameter]) -> None:
    """Let exactly the parameters of this stage ask for gradients."""
    ids = {id(parameter) for parameter in used}
    for parameter in trainable.values():
        parameter.requires_grad_(id(parameter) in ids)


class _Clock:
    """Seconds of work, and when the next resume point is due (``MTL_RESUME_SECONDS``, 30)."""

    def __init__(self, before: float = 0.0) -> None:
        self._start = time.monotonic() - before
        text = os.environ.get("MTL_RESUME_SECONDS", "30")
        try:
            self._every = float(text)
        except ValueError as error:
            raise RequestError(f"MTL_RESUME_SECONDS={text!r} must be a number.") from error
        self._last = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def point_due(self) -> bool:
        if time.monotonic() - self._last < self._every:
            return False
        self._last = time.monotonic()
        return True
