"""The torch side of :mod:`mtl.methods.diff_pruning`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mtl.engine import Group, Stage
from mtl.methods.base_tensors import read_pooler
from mtl.methods.diff_pruning import CUT, DiffPruningSettings
from mtl.methods.files import load_delta, save_sparse_delta
from mtl.methods.tuned import Tuned

if TYPE_CHECKING:
    from mtl.engine import RunSettings
    from mtl.methods.method import RunFacts

LOW, HIGH = -1.5, 1.5
"""Ends of the stretched concrete distribution."""


class Difference(nn.Module):
    """w, gates and, once pruned, the mask of all base tensors.

    Tensors are kept in lists, because names of ours in a module may not hold dots.
    """

    def __init__(self, base: Mapping[str, Tensor], settings: DiffPruningSettings) -> None:
        super().__init__()
        self.names = list(base)
        self._base = list(base.values())  # the parameters themselves: they may move to a device
        self.settings = settings
        self.w = nn.ParameterList([torch.zeros_like(value) for value in self._base])
        start = settings.alpha_start
        self.alpha = nn.ParameterList([torch.full_like(value, start) for value in self._base])
        self.group = nn.ParameterList([torch.full_like(v.new_empty(()), start) for v in self._base])
        self.masks: list[Tensor] = []

    def difference(self) -> list[Tensor]:
        """The difference per tensor, as it now acts."""
        if self.masks:
            return [w * mask for w, mask in zip(self.w, self.masks, strict=True)]
        found = []
        for w, alpha, group in zip(self.w, self.alpha, self.group, strict=True):
            z = _gate(alpha, self.training)
            if self.settings.group_gate:
                z = z * _gate(group, self.training)
            found.append(w * z)
        return found

    def tensors(self) -> dict[str, Tensor]:
        """theta by name."""
        pairs = zip(self.names, self._base, self.difference(), strict=True)
        return {name: base.detach() + change for name, base, change in pairs}

    def penalty(self) -> Tensor:
        """``Σ sigmoid(a − ln(−LOW/HIGH))`` times the sparsity weight; 0 once pruned."""
        if self.masks:
            return self.w[0].new_zeros(())
        shift = math.log(-LOW / HIGH)
        total = torch.stack([torch.sigmoid(alpha - shift).sum() for alpha in self.alpha]).sum()
        return self.settings.sparsity * total

    @torch.no_grad()
    def prune(self) -> None:
        """Keep the largest differences; w becomes the difference itself."""
        was, self.training = self.training, False
        changes = self.difference()
        self.training = was
        sizes = torch.cat([change.abs().reshape(-1) for change in changes])
        kept = max(1, int(self.settings.density * sizes.numel()))
        # The kept-th largest is the (N - kept + 1)-th smallest; ties at it are all kept.
        cut = sizes.kthvalue(sizes.numel() - kept + 1).values
        self.masks = [(change.abs() >= cut) & (change != 0) for change in changes]
        for w, change in zip(self.w, changes, strict=True):
            w.copy_(change)


def _gate(alpha: Tensor, training: bool) -> Tensor:
    if training:
        u = torch.empty_like(alpha).uniform_().clamp_(CUT, 1 - CUT)
        alpha = alpha + u.log() - (1 - u).log()
    return (torch.sigmoid(alpha) * (HIGH - LOW) + LOW).clamp(0, 1)


def _install(encoder: Any, difference: Difference) -> list[bool]:
    """Let the encoder compute with theta while the returned switch is on."""
    plain, on, inside = encoder.forward, [True], [False]
    places = _places(encoder, difference.names)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if inside[0] or not on[0]:
            return plain(*args, **kwargs)
        inside[0] = True
        try:
            theta = difference.tensors()
            whole = {place: theta[name] for name, held in places.items() for place in held}
            return functional_call(encoder, whole, args, kwargs, tie_weights=False)
        finally:
            inside[0] = False

    encoder.forward = forward
    return on


def _places(encoder: Any, names: Sequence[str]) -> dict[str, list[str]]:
    """Parameter → the names of all places that hold it, a module that has two names counted once.

    ``functional_call`` ties by name: it would swap a module with two names twice (the embedding,
    which ``adapters`` also lists under its prompt tuning), and put back the wrong tensor.
    """
    first = {id(encoder.get_parameter(name)): name for name in names}
    found: dict[str, list[str]] = {name: [] for name in names}
    seen: set[tuple[int, str]] = set()
    for where, module in encoder.named_modules(remove_duplicate=False):
        for key, value in module._parameters.items():
            if value is None or id(value) not in first or (id(module), key) in seen:
                continue
            seen.add((id(module), key))
            found[first[id(value)]].append(f"{where}.{key}" if where else key)
    return found


def attach(encoder: Any, settings: DiffPruningSettings, name: str, request: RunFacts) -> Tuned:
    """Give every base tensor a difference; the pooler only where the head reads it."""
    pooler = read_pooler(request.head)
    base = {
        key: value
        for key, value in encoder.named_parameters()
        if pooler or not key.startswith("pooler.")
    }
    difference = Difference(base, settings)
    on = _install(encoder, difference)
    encoder.register_module(f"difference_{name}", difference)

    def begin(fresh: bool) -> None:
        if fresh:
            difference.prune()

    def plan(run: RunSettings) -> Sequence[Stage]:
        return (
            Stage("gates"),
            Stage(
                "finetune",
                epochs=settings.finetune_epochs,
                train=("method", "head"),
                begin=begin,
                forget=True,
                lr_factor=settings.finetune_lr_factor,
            ),
        )

    def state() -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {f"mask.{i}": mask for i, mask in enumerate(difference.masks)}, {}

    def load_state(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        places = [parameter.device for parameter in difference.w]
        difference.masks = [
            tensors[f"mask.{i}"].to(place) for i, place in enumerate(places) if tensors
        ]

    @torch.no_grad()
    def finish() -> None:
        for key, value in difference.tensors().items():
            base[key].copy_(value)
        on[0] = False

    def save(folder: Path, _: str) -> None:
        changed = dict(zip(difference.names, difference.masks, strict=True))
        save_sparse_delta(folder, base, changed)

    entries = sum(value.numel() for value in base.values())
    gates = {**_named("alpha", difference.alpha)}
    if settings.group_gate:
        gates |= _named("group", difference.group)
    return Tuned(
        [
            Group("method", _named("w", difference.w)),
            Group("gates", gates, weight_decay=0.0, constant_lr=settings.alpha_lr),
        ],
        save,
        penalties=(lambda: {"sparsity": difference.penalty()},),
        plan=plan,
        state=state,
        load_state=load_state,
        finish=finish,
        whole_batches=True,  # a pass draws gates for, and computes, all of the base's weights
        merged=max(1, int(settings.density * entries)),
    )


def _named(kind: str, values: nn.ParameterList) -> dict[str, nn.Parameter]:
    return {f"{kind}.{index}": value for index, value in enumerate(values)}


def load(encoder: Any, settings: DiffPruningSettings, name: str, folder: Path) -> Tuned:
    """Put the stored entries into the base.

    Raises:
        ZooError: missing, damaged, or of another base.
    """
    before = {key: value.detach().clone() for key, value in encoder.named_parameters()}
    changed = load_delta(folder, encoder)
    where = {key: value.detach() != before[key] for key, value in changed.items()}
    return Tuned([], lambda target, base: save_sparse_delta(target, changed, where))
