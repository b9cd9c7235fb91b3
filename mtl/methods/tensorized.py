"""Tensorized adapters: the projections of a bottleneck as low-rank tensors (CP, Tucker, TT, TR)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtl.backbone.injection import CoreConfig
from mtl.engine import Group
from mtl.engine.settings import Training
from mtl.errors import RequestError, ZooError, unknown
from mtl.methods.base_tensors import layer_norms, unfreeze
from mtl.methods.core import attach_core, core_config, core_method, core_modules, load_core
from mtl.methods.files import DELTA_FILE, load_delta, save_delta
from mtl.methods.method import RunFacts
from mtl.methods.placement import ALL_PLACEMENTS
from mtl.methods.source import PlainSource
from mtl.methods.thin import FORMATS, TensorMap, factor_pair
from mtl.methods.tuned import Tuned


@dataclass(frozen=True)
class TensorizedSettings:
    """``relu(x W_d) W_u`` per site, no biases; W_d (D,R) and W_u (R,D) in a tensor format.

    With D = a·b, W_d is a tensor of modes (a, b, R) and W_u of (R, a, b); see
    :mod:`mtl.methods.thin` for the formats. Every tensor starts uniform in [-0.1, 0.1].

    Attributes:
        format: ``cp``, ``tucker``, ``tt`` or ``tr``; the method's name says which.
        rank: R of the format, for every mode.
        bottleneck: the adapter's R (64 in the paper).
        bottleneck_form: False is the form without a bottleneck, ``relu(x W)`` with W (D,D) of modes
            (a, b, a, b).
        placement: ``pfeiffer``, ``houlsby`` (the paper's), ``parallel`` or ``paper``.
        train_layer_norm: train all LayerNorms of the base, too, as the paper does. The entry then
            changes the base, and composes alone.
    """

    format: str = "tt"
    rank: int = 2
    bottleneck: int = 64
    bottleneck_form: bool = True
    placement: str = "pfeiffer"
    train_layer_norm: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise unknown("format", self.format, FORMATS)
        for name in ("rank", "bottleneck"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.placement not in ALL_PLACEMENTS:
            raise unknown("placement", self.placement, ALL_PLACEMENTS)


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


def modes(hidden_size: int) -> tuple[int, int]:
    """a and b with a·b = D.

    Raises:
        RequestError: D is a prime, so there is nothing to factor.
    """
    pair = factor_pair(hidden_size)
    if pair is None:
        raise RequestError(
            f"Tensorized adapters need a hidden size that is a product; {hidden_size} is a prime."
        )
    return pair


def _build(config: CoreConfig, hidden_size: int, size: int) -> tuple[nn.Module, nn.Module]:
    options = config.options
    pair = modes(hidden_size)
    make = partial(TensorMap, options["format"], rank=options["rank"])
    if not options["bottleneck_form"]:
        return TensorDown(make(pair, pair)), Same(hidden_size)
    return TensorDown(make(pair, (size,))), make((size,), pair)


def _size(format: str, settings: TensorizedSettings, hidden_size: int) -> int:
    """R of the adapter.

    Raises:
        RequestError: another format than the method's name says; see :func:`modes`.
    """
    if settings.format != format:
        raise RequestError(
            f"format={settings.format} is no setting of tensorized-{format}; use --method "
            f"tensorized-{settings.format}."
        )
    modes(hidden_size)
    return settings.bottleneck if settings.bottleneck_form else hidden_size


def _config(format: str, settings: TensorizedSettings, hidden_size: int) -> CoreConfig:
    return core_config("tensorized", settings, _size(format, settings, hidden_size), hidden_size)


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


def _attach(
    format: str, encoder: Any, settings: TensorizedSettings, name: str, request: RunFacts
) -> Tuned:
    names = layer_norms(encoder) if settings.train_layer_norm else []
    config = partial(_config, format)
    tuned = attach_core(f"tensorized-{format}", config, encoder, settings, name, request)
    norms: dict[str, Any] = unfreeze(encoder, names)
    return _with_norms(tuned, norms, encoder, name)


def _load(
    format: str, encoder: Any, settings: TensorizedSettings, name: str, folder: Path
) -> Tuned:
    names = layer_norms(encoder) if settings.train_layer_norm else []
    config = partial(_config, format)
    tuned = load_core(f"tensorized-{format}", config, encoder, settings, name, folder)
    norms = load_delta(folder, encoder) if names else {}
    if set(norms) != set(names):
        raise ZooError(
            f"The stored LayerNorms in {folder / DELTA_FILE} are not those of the base: they "
            f"differ in {', '.join(sorted(set(norms) ^ set(names)))}."
        )
    return _with_norms(tuned, norms, encoder, name)


def _method(format: str, spoken: str) -> Any:
    return core_method(
        f"tensorized-{format}",
        TensorizedSettings,
        core="tensorized",
        size=partial(_size, format),
        build=_build,
        attach=partial(_attach, format),
        load=partial(_load, format),
        summary=f"bottleneck projections in {spoken} format, thin products",
        citation="tensorized/tensorized_adapters; spec methods §3",
        training=Training(
            "spec methods §3.5",
            {"lr": 0.0002, "epochs": 20, "batch_size": 32, "select": "last", "patience": 0},
        ),
        defaults={"format": format},
        weights=lambda settings: "delta" if settings.train_layer_norm else "adapters",
    )


CP = _method("cp", "CP")
TUCKER = _method("tucker", "Tucker")
TT = _method("tt", "tensor-train")
TR = _method("tr", "tensor-ring")
