"""The torch side of :mod:`mtl.methods.tensorized`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtl.engine import Group
from mtl.errors import ZooError
from mtl.methods.base_tensors import layer_norms, unfreeze
from mtl.methods.core import attach_core, core_modules, load_core
from mtl.methods.files import DELTA_FILE, load_delta, save_delta
from mtl.methods.modules.thin import TensorMap
from mtl.methods.source import PlainSource
from mtl.methods.tensorized import TensorizedSettings, config_of, modes

if TYPE_CHECKING:
    from mtl.backbone.injection import CoreConfig
    from mtl.methods.method import RunFacts
    from mtl.methods.tuned import Tuned


class TensorDown(nn.Module):
    """``relu(z W)``: (B,T,D) → (B,T,R)."""

    def __init__(self, matrix: TensorMap) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, z: Tensor) -> Tensor:
        return self.matrix(z).relu()

    @torch.no_grad()
    def source(self, weight: Tensor, bias: Tensor) -> ThinSource:
        """The frozen view for stage two: the thin factors, multiplied once."""
        left, right = self.matrix.thin()
        return ThinSource(left.detach().clone(), right.detach().clone(), weight, bias)


class Same(nn.Module):
    """The up-projection of the form without a bottleneck: the identity."""

    like: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("like", torch.empty(0), persistent=False)  # device and dtype

    def forward(self, features: Tensor) -> Tensor:
        return features

    def dense(self) -> tuple[Tensor, Tensor]:
        """What stage two sees."""
        return torch.eye(self.size).to(self.like), self.like.new_zeros(self.size)


@dataclass(frozen=True)
class ThinSource:
    """A frozen source ``relu(z·left·right)``; K of one k and R are two products.

    Shapes: left (D,k), right (k,R), up_weight (D,R), up_bias (D,).
    """

    left: Tensor
    right: Tensor
    up_weight: Tensor
    up_bias: Tensor

    @property
    def key(self) -> Hashable:
        return ("thin", *self.right.shape)

    def features(self, z: Tensor) -> Tensor:
        return ((z @ self.left) @ self.right).relu()

    def up(self) -> tuple[Tensor, Tensor]:
        return self.up_weight, self.up_bias

    def plain(self) -> PlainSource:
        """The same features as ``relu(D z)`` with D (R,D) dense, multiplied in fp64."""
        down = (self.left.double() @ self.right.double()).t().to(self.left.dtype)
        zeros = down.new_zeros(down.shape[0])
        return PlainSource(down, zeros, "relu", self.up_weight, self.up_bias)

    @classmethod
    def stack(cls, sources: Sequence[ThinSource]) -> nn.Module:
        return _StackedThin(sources)


class _StackedThin(nn.Module):
    """Features of K thin sources: (B,T,D) → (B,T,K·R)."""

    left: Tensor
    right: Tensor

    def __init__(self, sources: Sequence[ThinSource]) -> None:
        super().__init__()
        self.register_buffer("left", torch.cat([s.left for s in sources], 1), persistent=False)
        self.register_buffer("right", torch.stack([s.right for s in sources]), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        thin = (z @ self.left).unflatten(-1, (len(self.right), -1))
        return torch.einsum("...nk,nkr->...nr", thin, self.right).relu().flatten(-2)


def build(config: CoreConfig, hidden_size: int, size: int) -> tuple[nn.Module, nn.Module]:
    options = config.options
    pair = modes(hidden_size)
    make = partial(TensorMap, options["format"], rank=options["rank"])
    if not options["bottleneck_form"]:
        return TensorDown(make(pair, pair)), Same(hidden_size)
    return TensorDown(make(pair, (size,))), make((size,), pair)


def _holding(encoder: Any, name: str) -> Callable[[], Any]:
    @contextmanager
    def context() -> Iterator[None]:
        maps = [
            part
            for site in core_modules(encoder, name).values()
            for part in site.modules()
            if isinstance(part, TensorMap)
        ]
        with torch.no_grad():
            for part in maps:
                part.hold(True)
        try:
            yield
        finally:
            for part in maps:
                part.hold(False)

    return context


def _with_norms(tuned: Tuned, norms: dict[str, Any], encoder: Any, name: str) -> Tuned:
    """``tuned`` with the caches of its maps and, where there are any, the base's LayerNorms."""
    save = tuned.save

    def both(folder: Path, base: str) -> None:
        save(folder, base)
        if norms:
            save_delta(folder, norms)

    groups = list(tuned.groups)
    if norms and groups:
        groups.append(Group("layer_norm", norms))
    return replace(tuned, groups=groups, save=both, caches=(_holding(encoder, name),))


def attach(
    format: str, encoder: Any, settings: TensorizedSettings, name: str, request: RunFacts
) -> Tuned:
    names = layer_norms(encoder) if settings.train_layer_norm else []
    config = partial(config_of, format)
    tuned = attach_core(f"tensorized-{format}", config, encoder, settings, name, request)
    norms: dict[str, Any] = unfreeze(encoder, names)
    return _with_norms(tuned, norms, encoder, name)


def load(format: str, encoder: Any, settings: TensorizedSettings, name: str, folder: Path) -> Tuned:
    names = layer_norms(encoder) if settings.train_layer_norm else []
    config = partial(config_of, format)
    tuned = load_core(f"tensorized-{format}", config, encoder, settings, name, folder)
    norms = load_delta(folder, encoder) if names else {}
    if set(norms) != set(names):
        raise ZooError(
            f"The stored LayerNorms in {folder / DELTA_FILE} are not those of the base: they "
            f"differ in {', '.join(sorted(set(norms) ^ set(names)))}."
        )
    return _with_norms(tuned, norms, encoder, name)
