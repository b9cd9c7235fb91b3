"""The training loop: steps, evaluations, selection, early stopping, resume.

Read :func:`train` from top to bottom; it is the whole story of a run. Everything the loop knows is
in :class:`~mtl.engine.resume.RunState` (numbers) and in tensors, and both go into every resume
point, so that a run killed anywhere and started again gives the result of an unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from mtl.backbone.draws import one_step
from mtl.data import cut
from mtl.engine.attached import Stage, Trainable, full, trainable_parameters
from mtl.engine.device import Device, seed_everything
from mtl.engine.evaluation import EvalSet
from mtl.engine.feed import Feed, to_device
from mtl.engine.folder import RunFolder
from mtl.engine.optimise import Optimiser
from mtl.engine.progress import Progress
from mtl.engine.resume import RunState, load_point, save_point
from mtl.engine.selecting import evaluate_and_select, evaluation_due
from mtl.engine.settings import LAST, RunSettings
from mtl.engine.tracking import Listener
from mtl.engine.watch import Clock, LossWatch


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


@dataclass(frozen=True)
class Step:
    """What a run asks for: one optimiser step, the ``number``-th of its stage, on ``rows``."""

    task: str
    rows: Any
    optimiser: Optimiser
    number: int


Taken = tuple[torch.Tensor, float]
"""Of a step that was taken: the batch's mean loss, still on the device, and the seconds it took."""


def train(job: Job, device: Device) -> Outcome:
    """Train ``job`` from the start or from its resume point, and leave the selected state loaded.

    Raises:
        RunError: a loss that is not finite; a damaged resume point; a disk that is full.
    """
    course = training(job, device)
    try:
        step = next(course)
        while True:
            started = time.monotonic()
            loss = take_step(job, device, step)
            step = course.send((loss, time.monotonic() - started))
    except StopIteration as ended:
        outcome: Outcome = ended.value
        return outcome


def training(job: Job, device: Device) -> Generator[Step, Taken, Outcome]:
    """A run as :func:`train` takes it, which leaves the steps themselves to who drives it.

    Several can so go side by side (:mod:`mtl.engine.together`). Between two steps torch's
    generators are the run's.

    Raises:
        RunError: as :func:`train`.
    """
    clock = Clock()
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
        clock = Clock(progress.seconds)
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
        watch = LossWatch(job, device, progress)
        try:
            while progress.stage_step < planned and not progress.stopped:
                task, rows = order[progress.batch]
                with clock.stopped():
                    loss, seconds = yield Step(task, rows, optimiser, progress.stage_step)
                clock.add(seconds)
                watch.add(loss)
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
                evaluated = evaluation_due(settings, progress, epoch_ended, ended)
                if evaluated:
                    watch.flush()
                    rate = optimiser.rate(progress.stage_step - 1)
                    evaluate_and_select(
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


def take_step(job: Job, device: Device, step: Step) -> torch.Tensor:
    """One optimiser step; returns the batch's mean loss, still on the device.

    The batch is dealt to processes and cut into pieces of like length; each piece's mean loss is
    weighted by its share of the rows, so the gradient is that of the whole batch.
    """
    task, rows, optimiser = step.task, step.rows, step.optimiser
    own = rows[device.rank :: device.world]
    total = torch.zeros((), device=device.torch_device)
    more = {"class_weights": job.class_weights[task]} if task in job.class_weights else {}
    with one_step():
        for places in pieces_of(job, task, own):
            piece = own[places]
            batch = to_device({**job.feed.collate(task, piece), **more}, device.torch_device)
            with device.autocast():
                parts = job.attached.loss(batch)
            loss = torch.stack([full(part) for part in parts.values()]).sum()
            loss = loss * (len(piece) / len(rows))
            loss.backward()
            total += loss.detach()
    device.reduce_gradients(optimiser.parameters)
    if job.settings.clip:
        nn.utils.clip_grad_norm_(optimiser.parameters, job.settings.clip)
    optimiser.step(step.number)
    return total


def pieces_of(job: Job, task: str, rows: Any) -> Sequence[Any]:
    """Places in ``rows`` of what goes through the network together."""
    overhead = math.inf if job.attached.whole_batches else job.overhead
    most = job.settings.micro_batch_size
    if math.isinf(overhead):  # one pass, or passes of `most` rows in their order
        size = max(most or len(rows), 1)
        return [slice(start, start + size) for start in range(0, len(rows), size)]
    return cut(job.feed.tokens(task, rows), overhead, most)


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
