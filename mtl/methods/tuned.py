"""What a stage-one method gives the run it is used in: what trains, how it is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mtl.engine import Attached, Group, RunSettings, Stage
    from mtl.tasks import TaskSpec

Loss = Callable[["nn.Module", "TaskSpec", Mapping[str, Any]], Mapping[str, "torch.Tensor"]]
"""(network, spec, batch) → named parts of the loss."""


@dataclass(frozen=True)
class Tuned:
    """A method attached to an encoder.

    Most methods fill ``groups`` and ``save`` only; the rest is for those whose training differs.

    Attributes:
        groups: what trains, head excluded. Names: ``method``; ``layer_norm`` for unfrozen
            LayerNorms of the base that the method's own count leaves out; ``masks`` for scores of
            which only a bit each is stored; ``gates`` for what is not stored at all. Parameter
            names carry no name of the adapter.
        save: (folder, base id) writes adapter files or ``delta.safetensors``.
        penalties, after, caches: see :class:`mtl.engine.Attached`.
        plan: the stages of training, None for one ordinary stage. The head's group is called
            ``head`` in :attr:`mtl.engine.Stage.train`.
        loss: replaces the task loss (two passes, …), None for the usual one.
        state, load_state: what a resume point must hold beyond trainable parameters.
        finish: called once, when training is over and the best state is loaded: merge experts,
            drop what is zero. Evaluation and storing see the result.
        whole_batches: see :class:`mtl.engine.Attached`.
        train_head: False keeps the head as it was drawn (SoRA's reference).
        merged: scalars that the method adds at inference, None where that is all that trains.
        mask_entries: bits stored beside the floats.
    """

    groups: Sequence[Group]
    save: Callable[[Path, str], None]
    penalties: Sequence[Callable[[], Mapping[str, torch.Tensor]]] = ()
    after: Sequence[Callable[[int], None]] = ()
    caches: Sequence[Callable[[], AbstractContextManager[None]]] = ()
    plan: Callable[[RunSettings], Sequence[Stage]] | None = None
    loss: Loss | None = None
    state: Callable[[], tuple[dict[str, torch.Tensor], dict[str, Any]]] | None = None
    load_state: Callable[[Mapping[str, torch.Tensor], Mapping[str, Any]], None] | None = None
    finish: Callable[[], None] | None = None
    whole_batches: bool = False
    train_head: bool = True
    merged: int | None = None
    mask_entries: int = 0

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All that trains, head excluded, by name."""
        return {key: value for group in self.groups for key, value in group.parameters.items()}

    def attachment(
        self,
        network: nn.Module,
        specs: Mapping[str, TaskSpec],
        head: Mapping[str, nn.Parameter],
    ) -> Attached:
        """The method with its head, or heads, as the engine trains them.

        Args:
            network: encoder and head.
            specs: task id → task.
            head: what of the head trains; left out where ``train_head`` is False.
        """
        from mtl.engine import Attached, Group

        groups = [
            replace(group, parameters={f"{group.name}.{k}": v for k, v in group.parameters.items()})
            for group in self.groups
        ]
        if self.train_head:
            groups.append(Group("head", dict(head)))
        return Attached(
            network,
            specs,
            groups,
            penalties=self.penalties,
            after=self.after,
            plan=self.plan,
            caches=self.caches,
            own_loss=self.loss,
            kept=(self.state, self.load_state) if self.state and self.load_state else None,
            finishing=self.finish,
            whole_batches=self.whole_batches,
        )
