"""The torch side of :mod:`mtl.methods.propetl`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.engine import Group
from mtl.errors import ZooError
from mtl.methods.core import core_modules
from mtl.methods.files import fill, read_own, save_own
from mtl.methods.library import activate
from mtl.methods.masks import keep_mask, new_scores, pack, unpack
from mtl.methods.modules.adakron import bert_linear
from mtl.methods.propetl import ProPETLSettings, config_of, size_of
from mtl.methods.source import PlainSource, activation
from mtl.methods.tuned import Tuned

if TYPE_CHECKING:
    from mtl.backbone.injection import CoreConfig
    from mtl.methods.method import RunFacts


class Prototype(nn.Module):
    """The shared bottleneck: ``down`` (R,D) and ``up`` (D,R), with biases."""

    def __init__(self, hidden_size: int, bottleneck: int) -> None:
        super().__init__()
        self.down = bert_linear(hidden_size, bottleneck)
        self.up = bert_linear(bottleneck, hidden_size)


class Masked(nn.Module):
    """One linear map of the prototype under this site's mask.

    The scores are transposed to the weight, (in,out), as in the reference.
    """

    mask: Tensor | None

    def __init__(self, inputs: int, outputs: int, keep: float) -> None:
        super().__init__()
        self.scores = new_scores(inputs, outputs)
        self.keep = keep
        self.register_buffer("mask", None, persistent=False)
        self._linear: list[nn.Linear] = []  # in a list, so that it is not registered here
        self._held: Tensor | None = None

    def bind(self, linear: nn.Linear) -> None:
        """Use ``linear`` of the prototype."""
        self._linear = [linear]

    def fix(self, mask: Tensor) -> None:
        """Use this 0/1 mask (in,out) from now on, in place of scores."""
        del self.scores
        self.mask = mask

    def current(self) -> Tensor:
        """The mask (in,out)."""
        return keep_mask(self.scores, self.keep) if self.mask is None else self.mask

    def weight(self) -> Tensor:
        """The masked weight (out,in)."""
        return self._linear[0].weight * self.current().t()

    def dense(self) -> tuple[Tensor, Tensor]:
        """Weight (out,in) and bias (out,)."""
        return self.weight(), self._linear[0].bias

    def hold(self, held: bool) -> None:
        """Mask once and keep that, or in every call again."""
        self._held = self.weight() if held else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight() if self._held is None else self._held
        return functional.linear(x, weight, self._linear[0].bias)


class MaskedDown(nn.Module):
    """``act(masked map)``: (B,T,D) → (B,T,R)."""

    def __init__(self, masked: Masked, name: str) -> None:
        super().__init__()
        self.masked = masked
        self.name = name
        self.act = activation(name)

    def forward(self, z: Tensor) -> Tensor:
        return self.act(self.masked(z))

    @torch.no_grad()
    def source(self, weight: Tensor, bias: Tensor) -> PlainSource:
        """The frozen view for stage two: dense and plain."""
        own, own_bias = self.masked.dense()
        return PlainSource(own.clone(), own_bias.clone(), self.name, weight, bias)


def build(config: CoreConfig, hidden_size: int, size: int) -> tuple[nn.Module, nn.Module]:
    options = config.options
    down = MaskedDown(Masked(hidden_size, size, options["keep"]), options["activation"])
    return down, Masked(size, hidden_size, options["keep"])


def _install(
    encoder: Any, settings: ProPETLSettings, name: str
) -> tuple[Prototype, dict[str, Masked]]:
    """Add the adapter and its prototype; returns that and the masked maps by site."""
    width = encoder.config.hidden_size
    prototype = Prototype(width, size_of(settings, width))
    encoder.add_adapter(name, config=config_of(settings, width))
    maps: dict[str, Masked] = {}
    for site, adapter in core_modules(encoder, name).items():
        maps[f"{site}.down"] = adapter.adapter_down.masked
        maps[f"{site}.up"] = adapter.adapter_up
        maps[f"{site}.down"].bind(prototype.down)
        maps[f"{site}.up"].bind(prototype.up)
    # Registered once, so that one name and one file entry stand for it.
    encoder.register_module(f"prototype_{name}", prototype)
    return prototype, maps


def _tuned(
    encoder: Any,
    settings: ProPETLSettings,
    prototype: Prototype,
    maps: Mapping[str, Masked],
    groups: list[Group],
) -> Tuned:
    def save(folder: Path, base: str) -> None:
        with torch.no_grad():
            bits = {f"{key}.mask": pack(masked.current()) for key, masked in maps.items()}
        tensors = {**prototype.state_dict(), **bits}
        save_own(folder, "propetl", settings, encoder, tensors, base)

    entries = sum(masked._linear[0].weight.numel() for masked in maps.values())
    return Tuned(groups, save, caches=(_holding(maps),), mask_entries=entries)


def _holding(maps: Mapping[str, Masked]) -> Callable[[], Any]:
    @contextmanager
    def context() -> Iterator[None]:
        with torch.no_grad():
            for masked in maps.values():
                masked.hold(True)
        try:
            yield
        finally:
            for masked in maps.values():
                masked.hold(False)

    return context


def attach(encoder: Any, settings: ProPETLSettings, name: str, _: RunFacts) -> Tuned:
    """Add a new prototype and masks at every site, active and trainable."""
    prototype, maps = _install(encoder, settings, name)
    activate(encoder, name)
    own = dict(prototype.named_parameters())
    prototype.requires_grad_(True)
    groups = [Group("method", own)]
    if settings.learn_masks:
        scores = {f"{key}.scores": masked.scores for key, masked in maps.items()}
        for parameter in scores.values():
            parameter.requires_grad_(True)
        groups.append(Group("masks", scores, lr_factor=settings.mask_lr_factor))
    else:
        for masked in maps.values():
            masked.fix(masked.current().detach())
    return _tuned(encoder, settings, prototype, maps, groups)


def load(encoder: Any, settings: ProPETLSettings, name: str, folder: Path) -> Tuned:
    """Add the stored prototype and its masks, frozen.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    stored = read_own(folder, "propetl", encoder)
    prototype, maps = _install(encoder, settings, name)
    prototype.requires_grad_(False)
    floats = {key: value for key, value in stored.items() if not key.endswith(".mask")}
    fill("propetl", dict(prototype.named_parameters()), floats)
    for key, masked in maps.items():
        try:
            masked.fix(unpack(stored[f"{key}.mask"], tuple(masked.scores.shape)))
        except (KeyError, ValueError) as error:
            raise ZooError(
                f"The stored weights of propetl do not fit: mask {key} in {folder}: {error}."
            ) from error
    return _tuned(encoder, settings, prototype, maps, [])
