"""The torch side of :mod:`mtl.joint.written`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.backbone.injection import CoreConfig
from mtl.joint.written import SiteSettings, config_of
from mtl.methods.core import core_modules
from mtl.methods.library import activate
from mtl.methods.source import activation

LAYER_NORM_EPS = 1e-5


class Adapter(NamedTuple):
    """``u = up·act(down·z + c) + b`` of one layer, then ``gain ⊙ norm(u) + shift`` if there is one.

    Shapes: down (R,D), up (D,R), down_bias c (R,), the others (D,).
    """

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor
    gain: Tensor | None = None
    shift: Tensor | None = None


class Written(nn.Module):
    """One map of an adapter that is given its weights from outside."""

    def __init__(self) -> None:
        super().__init__()
        self._now: Adapter | None = None

    def set(self, adapter: Adapter | None) -> None:
        """Compute with this adapter from now on."""
        self._now = adapter

    @property
    def now(self) -> Adapter:
        if self._now is None:
            raise RuntimeError("an adapter that is made per task is used outside of a task")
        return self._now


class WrittenDown(Written):
    """``act(down·z + c)``: (B,T,D) → (B,T,R)."""

    def __init__(self, act: str) -> None:
        super().__init__()
        self.act = activation(act)

    def forward(self, z: Tensor) -> Tensor:
        return self.act(functional.linear(z, self.now.down, self.now.down_bias))


class WrittenUp(Written):
    """``up·f + b`` and its LayerNorm, where there is one: (B,T,R) → (B,T,D)."""

    def forward(self, features: Tensor) -> Tensor:
        now = self.now
        raw = functional.linear(features, now.up, now.up_bias)
        if now.gain is None:
            return raw
        return functional.layer_norm(raw, raw.shape[-1:], now.gain, now.shift, LAYER_NORM_EPS)


def build(config: CoreConfig, hidden_size: int, size: int) -> tuple[nn.Module, nn.Module]:
    return WrittenDown(config.options["activation"]), WrittenUp()


def add_sites(
    encoder: Any, settings: SiteSettings, name: str
) -> list[tuple[WrittenDown, WrittenUp]]:
    """Add the adapter ``name``, active, with nothing in it; its maps, bottom up."""
    encoder.add_adapter(name, config=config_of(settings, encoder.config.hidden_size))
    activate(encoder, name)
    return [(site.adapter_down, site.adapter_up) for site in core_modules(encoder, name).values()]


class Writer:
    """Gives the sites their adapters: made per forward pass, or once per task while caching.

    Args:
        write: task id → the adapters of all sites, bottom up.
    """

    def __init__(
        self, write: Callable[[str], list[Adapter]], sites: Sequence[tuple[Written, Written]]
    ) -> None:
        self._write, self._sites = write, sites
        self._cache: dict[str, list[Adapter]] | None = None

    @contextmanager
    def use(self, task: str) -> Iterator[None]:
        """The encoder computes for ``task``."""
        self._set(self._written(task))
        try:
            yield
        finally:
            self._set([None] * len(self._sites))

    @contextmanager
    def caching(self) -> Iterator[None]:
        """Nothing trains: a task's adapters are made once."""
        self._cache = {}
        try:
            yield
        finally:
            self._cache = None

    def _written(self, task: str) -> list[Adapter]:
        if self._cache is None:
            return self._write(task)
        if task not in self._cache:
            with torch.no_grad():
                self._cache[task] = self._write(task)
        return self._cache[task]

    def _set(self, adapters: Sequence[Adapter | None]) -> None:
        for pair, adapter in zip(self._sites, adapters, strict=True):
            for module in pair:
                module.set(adapter)
