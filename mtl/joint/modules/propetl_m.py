"""The torch side of :mod:`mtl.joint.propetl_m`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtl.engine import Group
from mtl.errors import ZooError
from mtl.joint.joint_method import Shared
from mtl.joint.modules.written import Adapter, Writer, add_sites
from mtl.joint.propetl_m import ProPETLMSettings
from mtl.joint.written import bottleneck_of
from mtl.methods import RunFacts, Tuned
from mtl.methods.files import fill, read_own, save_own
from mtl.methods.masks import keep_masks, new_scores, pack, unpack
from mtl.methods.modules.propetl import Prototype


def combine_masks(task: Tensor, layers: Tensor, how: str) -> Tensor:
    """The mask of a task, (…), with those of L layers, (L,…) → (L,…)."""
    if how == "or":
        return 1 - (1 - task) * (1 - layers)
    return task * layers if how == "and" else task + layers


class Masks(nn.Module):
    """The masks of one map: a score tensor of the weight's shape (out,in) per task and layer."""

    def __init__(
        self, outputs: int, inputs: int, tasks: int, layers: int, settings: ProPETLMSettings
    ) -> None:
        super().__init__()
        self._keep, self._combine = settings.keep, settings.combine
        self._fixed = False
        self.count = layers
        self.first = int(settings.tie_layer_scores)
        # One parameter each: a task that a batch is not of gets no gradient and does not move.
        self.tasks = nn.ParameterList(new_scores(outputs, inputs) for _ in range(tasks))
        self.layers: nn.Parameter | None = None
        if settings.combine != "task" and layers > self.first:
            self.layers = new_scores(layers - self.first, outputs, inputs)

    def forward(self, task: int) -> Tensor:
        """The masks of all layers for the task in place ``task``: (L,out,in), or (1,out,in)."""
        own = self._masks(self.tasks[task][None])
        if self._combine == "task":
            return own
        parts = [self._masks(self.tasks[-1][None])] if self.first else []
        if self.layers is not None:
            parts.append(self._masks(self.layers))
        return combine_masks(own[0], torch.cat(parts) if self.first else parts[0], self._combine)

    def _masks(self, scores: Tensor) -> Tensor:
        return scores if self._fixed else keep_masks(scores, self._keep)

    def binary(self, tasks: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Every 0/1 mask (out,in) by its name."""
        for name, scores in zip(tasks, self.tasks, strict=True):
            yield f"task.{name}", self._masks(scores[None])[0]
        if self.layers is not None:
            for layer, mask in enumerate(self._masks(self.layers), start=self.first):
                yield f"layer.{layer}", mask

    @torch.no_grad()
    def fix(self, masks: dict[str, Tensor], tasks: Sequence[str]) -> None:
        """Use these 0/1 masks, named as :meth:`binary` names them, in place of scores."""
        for name, scores in zip(tasks, self.tasks, strict=True):
            scores.copy_(masks[f"task.{name}"])
        if self.layers is not None:
            for layer, scores in enumerate(self.layers, start=self.first):
                scores.copy_(masks[f"layer.{layer}"])
        self._fixed = True


class MaskedPrototype(nn.Module):
    """Makes the adapters of all L layers for a task: one product with the masks of each map."""

    def __init__(
        self, tasks: Sequence[str], layers: int, width: int, size: int, settings: ProPETLMSettings
    ) -> None:
        super().__init__()
        self._layers = layers
        self._names = list(tasks)
        self._place = {task: index for index, task in enumerate(tasks)}
        self.prototype = Prototype(width, size)
        self.down = Masks(size, width, len(self._names), layers, settings)
        self.up = Masks(width, size, len(self._names), layers, settings)

    def forward(self, task: str) -> list[Adapter]:
        """The adapters of ``task``, bottom up."""
        own, place = self.prototype, self._place[task]
        down = (own.down.weight * self.down(place)).expand(self._layers, -1, -1)
        up = (own.up.weight * self.up(place)).expand(self._layers, -1, -1)
        return [
            Adapter(one, own.down.bias, other, own.up.bias)
            for one, other in zip(down.unbind(0), up.unbind(0), strict=True)
        ]

    def maps(self) -> Iterator[tuple[str, Masks]]:
        """The masks of both maps."""
        yield "down", self.down
        yield "up", self.up

    def scores(self) -> dict[str, nn.Parameter]:
        """All score tensors, those of a task by its id."""
        found: dict[str, nn.Parameter] = {}
        for part, masks in self.maps():
            for name, scores in zip(self._names, masks.tasks, strict=True):
                found[f"task.{name}.{part}"] = scores
            if masks.layers is not None:
                found[f"layers.{part}"] = masks.layers
        return found

    @torch.no_grad()
    def bits(self) -> dict[str, Tensor]:
        """Every mask as bits, by its name in the file."""
        return {
            f"{name}.{part}.mask": pack(mask)
            for part, masks in self.maps()
            for name, mask in masks.binary(self._names)
        }

    def fix(self, stored: dict[str, Tensor]) -> None:
        """Use the masks that :meth:`bits` packed.

        Raises:
            ZooError: one is missing, too many are there, or one has another size.
        """
        left = set(stored)
        for part, masks in self.maps():
            found = {}
            for name, mask in list(masks.binary(self._names)):
                key = f"{name}.{part}.mask"
                try:
                    found[name] = unpack(stored[key], tuple(mask.shape))
                except (KeyError, ValueError) as error:
                    raise ZooError(
                        f"The stored weights of propetl-m do not fit: mask {key}: {error}."
                    ) from error
                left.discard(key)
            masks.fix(found, self._names)
        if left:
            names = ", ".join(sorted(left)[:3])
            raise ZooError(f"The stored weights of propetl-m do not fit: unknown {names}.")


def _install(
    encoder: Any, tasks: Sequence[str], settings: ProPETLMSettings, name: str
) -> tuple[MaskedPrototype, Writer]:
    sites = add_sites(encoder, settings, name)
    width = encoder.config.hidden_size
    masked = MaskedPrototype(tasks, len(sites), width, bottleneck_of(settings, width), settings)
    encoder.register_module(f"prototype_{name}", masked)
    return masked, Writer(masked, sites)


def _shared(
    encoder: Any,
    settings: ProPETLMSettings,
    masked: MaskedPrototype,
    writer: Writer,
    groups: list[Group],
) -> Shared:
    def save(folder: Path, base: str) -> None:
        tensors = {**masked.prototype.state_dict(), **masked.bits()}
        save_own(folder, "propetl-m", settings, encoder, tensors, base)

    entries = sum(scores.numel() for scores in masked.scores().values())
    tuned = Tuned(groups, save, caches=(writer.caching,), mask_entries=entries)
    return Shared(tuned, writer.use)


def attach(
    encoder: Any, tasks: Sequence[str], settings: ProPETLMSettings, name: str, _: RunFacts
) -> Shared:
    """Add a new prototype and its masks, active and trainable."""
    masked, writer = _install(encoder, tasks, settings, name)
    masked.requires_grad_(True)
    groups = [
        Group("method", dict(masked.prototype.named_parameters())),
        Group("masks", masked.scores(), lr_factor=settings.mask_lr_factor),
    ]
    return _shared(encoder, settings, masked, writer, groups)


def load(
    encoder: Any, tasks: Sequence[str], settings: ProPETLMSettings, name: str, folder: Path
) -> Shared:
    """Add the stored prototype and its masks, frozen and active.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    stored = read_own(folder, "propetl-m", encoder)
    masked, writer = _install(encoder, tasks, settings, name)
    masked.requires_grad_(False)
    floats = {key: value for key, value in stored.items() if not key.endswith(".mask")}
    fill("propetl-m", dict(masked.prototype.named_parameters()), floats)
    masked.fix({key: value for key, value in stored.items() if key.endswith(".mask")})
    return _shared(encoder, settings, masked, writer, [])
