"""The contract between the engine and whatever trains on the frozen encoder.

A method, a composition or a joint model gives the engine an :class:`Trainable`. Most are served by
:class:`Attached`, which holds the usual answers and takes the unusual ones as functions; a
method with a loss of its own writes a small class with the same methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from mtl.tasks import task_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtl.engine.settings import RunSettings
    from mtl.tasks import TaskSpec

Batch = Mapping[str, Any]
"""``input_ids``, ``attention_mask`` (N,T), ``labels``, ``row`` (int64), ``task``, its id, and of a
run that balances its classes ``class_weights`` (C,)."""


def full(values: torch.Tensor) -> torch.Tensor:
    """``values`` in fp32, or in the precision they have if that is higher."""
    return values if values.dtype == torch.float64 else values.float()


@dataclass(frozen=True)
class Group:
    """Parameters that are optimised alike.

    Attributes:
        name: for logs and for :attr:`Stage.train`.
        parameters: by a name that is unique over all groups and stable over processes.
        lr_factor: multiplies the run's learning rate.
        weight_decay: None for the run's (biases and normalisation never), or a fixed value.
        options: further options of AdamW for this group (betas, eps).
        constant_lr: a rate of its own that no schedule and no ``lr_factor`` touches.
        adam_form: None for the run's, or the form that the method is defined with.
    """

    name: str
    parameters: Mapping[str, nn.Parameter]
    lr_factor: float = 1.0
    weight_decay: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    constant_lr: float | None = None
    adam_form: str | None = None


@dataclass(frozen=True)
class Stage:
    """A part of training with an optimiser and a schedule of its own.

    Attributes:
        name: for logs.
        epochs: its length, None for the run's ``epochs`` (or ``max_steps``).
        train: names of the groups that train in it, None for all.
        begin: called when the stage is entered and again when a run resumes in it; its argument
            says whether it is entered afresh. What it changes only once goes into ``state()``.
        forget: what was best before this stage is no candidate any more (another model trains).
        lr_factor: multiplies the run's learning rate in this stage.
    """

    name: str = "train"
    epochs: int | None = None
    train: tuple[str, ...] | None = None
    begin: Callable[[bool], None] | None = None
    forget: bool = False
    lr_factor: float = 1.0


class Trainable(Protocol):
    """What the engine needs of a model in training.

    Nothing here may keep state outside parameters, buffers and what :meth:`state` returns, and
    randomness comes only from torch's generators, which the run seeds and restores.
    """

    network: nn.Module
    whole_batches: bool
    """Whether a batch goes through the network in one pass, however long its rows are."""

    def groups(self) -> Sequence[Group]:
        """All trainable parameters. Everything else is frozen."""

    def stages(self, settings: RunSettings) -> Sequence[Stage]:
        """The parts of training, in order."""

    def loss(self, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Named parts of the loss, each a scalar (means over the batch); their sum is minimised."""

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits (N,C) for evaluation."""

    def after_step(self, step: int) -> None:
        """Called after ``optimizer.step()`` number ``step``, before gradients are cleared."""

    def finish(self) -> None:
        """Called once when training is over and the best state is loaded, before the tests."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Entered around every evaluation: merge experts, cache folds and generated weights."""

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and JSON beyond the trainable parameters that a resume point must hold."""

    def load_state(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` returned."""


@dataclass
class Attached:
    """The usual :class:`Trainable`: one task's loss on one network, plus what is handed in.

    Attributes:
        network: batch → logits; frozen and trainable parts together.
        specs: task id → spec; the batch's ``task`` picks the loss.
        trainable: the groups.
        penalties: functions returning further named parts of the loss (fusion regulariser, L1).
        after: functions called after each optimiser step (proximal step, allocation).
        plan: the stages, None for one ordinary stage.
        caches: context managers entered around evaluation.
        own_loss: (network, spec, batch) → named parts, in place of the task's loss.
        kept: (state, load_state) of what a resume point must hold beyond trainable parameters.
        finishing: called by :meth:`finish`.
        whole_batches: for what costs much per pass, whatever its rows, or draws noise in each.
    """

    network: nn.Module
    specs: Mapping[str, TaskSpec]
    trainable: Sequence[Group]
    penalties: Sequence[Callable[[], Mapping[str, torch.Tensor]]] = ()
    after: Sequence[Callable[[int], None]] = ()
    plan: Callable[[RunSettings], Sequence[Stage]] | None = None
    caches: Sequence[Callable[[], AbstractContextManager[None]]] = (nullcontext,)
    own_loss: Callable[[nn.Module, TaskSpec, Batch], Mapping[str, torch.Tensor]] | None = None
    kept: tuple[Callable[[], Any], Callable[[Any, Any], None]] | None = None
    finishing: Callable[[], None] | None = None
    whole_batches: bool = False

    def groups(self) -> Sequence[Group]:
        return self.trainable

    def stages(self, settings: RunSettings) -> Sequence[Stage]:
        return self.plan(settings) if self.plan else (Stage(),)

    def logits(self, batch: Batch) -> torch.Tensor:
        return self.network(batch)

    def loss(self, batch: Batch) -> Mapping[str, torch.Tensor]:
        spec = self.specs[batch["task"]]
        if self.own_loss is not None:
            parts = dict(self.own_loss(self.network, spec, batch))
        else:
            logits = full(self.network(batch))
            weights = batch.get("class_weights")
            parts = {"task": task_loss(spec, logits, batch["labels"], weights)}
        for penalty in self.penalties:
            parts.update(penalty())
        return parts

    def after_step(self, step: int) -> None:
        for function in self.after:
            function(step)

    def finish(self) -> None:
        if self.finishing is not None:
            self.finishing()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        with ExitStack() as stack:
            for cache in self.caches:
                stack.enter_context(cache())
            yield

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        return self.kept[0]() if self.kept else ({}, {})

    def load_state(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        if self.kept:
            self.kept[1](tensors, values)


def trainable_parameters(attached: Trainable) -> dict[str, nn.Parameter]:
    """All trainable parameters by name.

    Raises:
        ValueError: two groups use one name, or a parameter is in two groups (a defect of a method).
    """
    found: dict[str, nn.Parameter] = {}
    for group in attached.groups():
        for name, parameter in group.parameters.items():
            if name in found:
                raise ValueError(f"two trainable parameters are called {name!r}")
            found[name] = parameter
    if len({id(parameter) for parameter in found.values()}) != len(found):
        raise ValueError("one parameter is trained under two names")
    return found
