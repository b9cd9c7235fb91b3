"""What stage two needs of a frozen stage-one adapter at one site.

Every source can say its features, ``features(z) → (B,T,R)``, and its linear map out of them,
``up() → (U, b)`` with U (D,R) and b (D,): its contribution is ``U·features(z) + b``, before any
residual. Compositions use nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as functional
from adapters.methods.modeling import Activation_Function_Class, Adapter
from torch import Tensor, nn

from mtl.errors import RequestError


class Source(Protocol):
    """A frozen adapter at one site, as compositions see it."""

    def features(self, z: Tensor) -> Tensor:
        """(B,T,D) → (B,T,R)."""

    def up(self) -> tuple[Tensor, Tensor]:
        """U (D,R) and b (D,)."""


@dataclass(frozen=True)
class PlainSource:
    """A source whose features are ``act(down·z + down_bias)``: it can be batched with others.

    Shapes: down (R,D), down_bias (R,), up_weight (D,R), up_bias (D,).
    """

    down: Tensor
    down_bias: Tensor
    activation: str
    up_weight: Tensor
    up_bias: Tensor

    def features(self, z: Tensor) -> Tensor:
        return activation(self.activation)(functional.linear(z, self.down, self.down_bias))

    def up(self) -> tuple[Tensor, Tensor]:
        return self.up_weight, self.up_bias


def activation(name: str) -> nn.Module:
    """The activation function that ``adapters`` calls ``name``."""
    return Activation_Function_Class(name)


@torch.no_grad()
def as_source(adapter: Adapter, config: Any) -> Source:
    """The :class:`Source` view of an adapter module at one site.

    A module with a method ``source()`` answers for itself; a stock ``Adapter`` with linear maps is
    plain, with its output scaling folded into U and b (it stands behind them in ``adapters``, and
    before the dropout that a frozen source does not apply).

    Raises:
        RequestError: normalisation, gating or stochastic depth inside the adapter: the output is
            then no linear map of features.
    """
    own = getattr(adapter, "source", None)
    if callable(own):
        return own()
    odd = [
        option
        for option in ("ln_before", "ln_after", "use_gating", "stochastic_depth", "phm_layer")
        if config[option]
    ]
    if odd:
        raise RequestError(
            f"Cannot compose an adapter that uses {', '.join(odd)}: its output is not a linear map "
            "of bottleneck features."
        )
    linear = adapter.adapter_down[0]
    scaling = adapter.scaling
    weight = adapter.adapter_up.weight
    column = scaling.reshape(-1, 1) if isinstance(scaling, Tensor) else scaling
    return PlainSource(
        down=linear.weight.detach().clone(),
        down_bias=linear.bias.detach().clone(),
        activation=config["non_linearity"].lower(),
        up_weight=(weight * column).detach().clone(),
        up_bias=(adapter.adapter_up.bias * scaling).detach().clone(),
    )
