"""The torch side of :mod:`mtl.methods.adakron`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.methods.adakron import FACTOR

if TYPE_CHECKING:
    from mtl.backbone.injection import CoreConfig


def kron_features(both: Tensor, outer: int = FACTOR) -> Tensor:
    """``GELU(u ⊗ v)`` of ``both = [u; v]``: (…, 4 + R/4) → (…, R).

    Only u and v are kept for the backward pass.
    """
    return _KronFeatures.apply(both, outer)


class _KronFeatures(torch.autograd.Function):
    """Makes ``u ⊗ v`` again in the backward pass, where autograd would keep it: R per token."""

    @staticmethod
    def forward(ctx: Any, both: Tensor, outer: int) -> Tensor:
        ctx.save_for_backward(both)
        ctx.outer = outer
        u, v = _factors(both, outer)
        return functional.gelu((u * v).flatten(-2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (both,) = ctx.saved_tensors
        u, v = _factors(both, ctx.outer)
        product = u * v
        grad = torch.ops.aten.gelu_backward(grads[0].reshape(product.shape), product)
        return torch.cat([(grad * v).sum(-1), (grad * u).sum(-2)], dim=-1), None


def _factors(both: Tensor, outer: int) -> tuple[Tensor, Tensor]:
    """u (…,4,1) and v (…,1,R/4), whose product is ``u ⊗ v`` before flattening."""
    return both[..., :outer].unsqueeze(-1), both[..., outer:].unsqueeze(-2)


def bert_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with weights N(0, 0.02) and zero bias."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear


@torch.no_grad()
def filled_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer that starts as copies of ``weight`` (out,in) and ``bias``; draws nothing."""
    linear: nn.Linear = nn.utils.skip_init(
        nn.Linear, weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype
    )
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
    return linear


class KronDown(nn.Module):
    """(B,T,D) → (B,T,R). Both projections are one linear layer D → 4 + R/4, u first."""

    calls_linears = True
    """What trains are linears that it calls, so that those of several runs can answer in them."""

    def __init__(self, both: nn.Linear) -> None:
        super().__init__()
        self.both = both

    def forward(self, z: Tensor) -> Tensor:
        return kron_features(self.both(z))

    @torch.no_grad()
    def source(self, weight: Tensor, bias: Tensor) -> KronSource:
        """The frozen view for stage two."""
        return KronSource(
            self.both.weight.detach().clone(), self.both.bias.detach().clone(), weight, bias
        )


@dataclass(frozen=True)
class KronSource:
    """A frozen AdaKron adapter at one site; K of equal R are one product and one broadcast.

    Shapes: both (4 + R/4, D), both_bias (4 + R/4,), up_weight (D,R), up_bias (D,).
    """

    both: Tensor
    both_bias: Tensor
    up_weight: Tensor
    up_bias: Tensor

    @property
    def key(self) -> Hashable:
        return ("kron", self.both.shape[0])

    def features(self, z: Tensor) -> Tensor:
        return kron_features(functional.linear(z, self.both, self.both_bias))

    def up(self) -> tuple[Tensor, Tensor]:
        return self.up_weight, self.up_bias

    @classmethod
    def stack(cls, sources: Sequence[KronSource]) -> nn.Module:
        return _StackedKron(sources)


class _StackedKron(nn.Module):
    """Features of K AdaKron sources: (B,T,D) → (B,T,K·R)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, sources: Sequence[KronSource]) -> None:
        super().__init__()
        self.count = len(sources)
        self.register_buffer("weight", torch.cat([s.both for s in sources]), persistent=False)
        self.register_buffer("bias", torch.cat([s.both_bias for s in sources]), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        both = functional.linear(z, self.weight, self.bias)
        return kron_features(both.unflatten(-1, (self.count, -1))).flatten(-2)


def build(config: CoreConfig, hidden_size: int, size: int) -> tuple[nn.Module, nn.Module]:
    both = bert_linear(hidden_size, FACTOR + size // FACTOR)
    return KronDown(both), bert_linear(size, hidden_size)
