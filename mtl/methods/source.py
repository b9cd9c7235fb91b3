"""What stage two needs of a frozen stage-one adapter at one site.

Every source can say its features, ``features(z) → (B,T,R)``, and its linear map out of them,
``up() → (U, b)`` with U (D,R) and b (D,): its contribution is ``U·features(z) + b``, before any
residual. Compositions use nothing else.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as functional
from adapters.methods.modeling import Activation_Function_Class, Adapter, PHMLayer
from torch import Tensor, nn

from mtl.backbone.injection import CoreConfig
from mtl.errors import RequestError


class Source(Protocol):
    """A frozen adapter at one site, as compositions see it.

    Attributes:
        key: sources of an equal key are computed together.
    """

    @property
    def key(self) -> Hashable: ...

    def features(self, z: Tensor) -> Tensor:
        """(B,T,D) → (B,T,R)."""

    def up(self) -> tuple[Tensor, Tensor]:
        """U (D,R) and b (D,)."""

    @classmethod
    def stack(cls, sources: Sequence[Any]) -> nn.Module:
        """The features of K sources of this class and key at once: (B,T,D) → (B,T,ΣR)."""


@dataclass(frozen=True)
class PlainSource:
    """A source whose features are ``act(down·z + down_bias)``: K of them are one product.

    Shapes: down (R,D), down_bias (R,), up_weight (D,R), up_bias (D,).
    """

    down: Tensor
    down_bias: Tensor
    activation: str
    up_weight: Tensor
    up_bias: Tensor

    @property
    def key(self) -> Hashable:
        return ("plain", self.activation)

    def features(self, z: Tensor) -> Tensor:
        return activation(self.activation)(functional.linear(z, self.down, self.down_bias))

    def up(self) -> tuple[Tensor, Tensor]:
        return self.up_weight, self.up_bias

    @classmethod
    def stack(cls, sources: Sequence[PlainSource]) -> nn.Module:
        return PlainDown(
            torch.cat([source.down for source in sources]),
            torch.cat([source.down_bias for source in sources]),
            sources[0].activation,
        )


def plain_source(source: Any) -> PlainSource | None:
    """The source as :class:`PlainSource` where its features are ``act(D z + c)``, else None."""
    if isinstance(source, PlainSource):
        return source
    plain = getattr(source, "plain", None)
    return plain() if plain is not None else None


class PlainDown(nn.Module):
    """``act(weight·z + bias)`` with fixed tensors: (B,T,D) → (B,T,R)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, name: str) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.activation = activation(name)

    def forward(self, z: Tensor) -> Tensor:
        return self.activation(functional.linear(z, self.weight, self.bias))


class CoreSource(nn.Module):
    """Any core as a source: its down map as it is, its up map dense. Several run one by one.

    A core that can be batched brings a source of its own instead (see :func:`as_source`).
    """

    def __init__(self, down: nn.Module, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        # Frozen, and moved with the network; no parameter is added.
        self.down = down
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    @property
    def key(self) -> Hashable:
        return ("core", id(self))

    def features(self, z: Tensor) -> Tensor:
        return self.down(z)

    def up(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.bias  # type: ignore[return-value]

    @classmethod
    def stack(cls, sources: Sequence[CoreSource]) -> nn.Module:
        (source,) = sources  # the key is its own
        return source.down


def activation(name: str) -> nn.Module:
    """The activation function that ``adapters`` calls ``name``."""
    return Activation_Function_Class(name)


@torch.no_grad()
def as_source(adapter: Adapter, config: Any) -> Source:
    """The :class:`Source` view of an adapter module at one site.

    A stock ``Adapter`` with linear maps is plain, with its output scaling folded into U and b (it
    stands behind them in ``adapters``, and before the dropout that a frozen source does not
    apply). Of a core of ours, ``up`` is a ``Linear`` or has ``dense() → (U, b)``; a ``down`` with a
    method ``source(U, b)`` answers for itself. A source that was replaced by a twin is that twin
    (:mod:`mtl.compose.control`).

    Raises:
        RequestError: normalisation, gating or stochastic depth inside the adapter: the output is
            then no linear map of features. Or a PHM layer that :attr:`Method.as_source` has not
            made dense.
    """
    twin: Source | None = getattr(adapter, "twin", None)
    if twin is not None:
        return twin
    odd = [
        option
        for option in ("ln_before", "ln_after", "use_gating", "stochastic_depth")
        if config[option]
    ]
    if odd:
        raise RequestError(
            f"Cannot compose an adapter that uses {', '.join(odd)}: its output is not a linear map "
            "of bottleneck features."
        )
    if isinstance(adapter.adapter_up, PHMLayer):
        raise RequestError(
            "Cannot compose a phm_layer as it is: it reads its rule from the forward of the active "
            "adapter. The method's own as_source makes it dense; call that first."
        )
    up, scaling = adapter.adapter_up, adapter.scaling
    weight, bias = (up.weight, up.bias) if isinstance(up, nn.Linear) else up.dense()
    column = scaling.reshape(-1, 1) if isinstance(scaling, Tensor) else scaling
    weight, bias = (weight * column).detach().clone(), (bias * scaling).detach().clone()
    down = adapter.adapter_down
    if isinstance(config, CoreConfig):
        own = getattr(down, "source", None)
        return own(weight, bias) if callable(own) else CoreSource(down, weight, bias)
    linear = down[0]
    return PlainSource(
        down=linear.weight.detach().clone(),
        down_bias=linear.bias.detach().clone(),
        activation=config["non_linearity"].lower(),
        up_weight=weight,
        up_bias=bias,
    )
