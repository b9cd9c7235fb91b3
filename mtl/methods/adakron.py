"""AdaKron: bottleneck features as a Kronecker product of two small projections."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.backbone.injection import CoreConfig
from mtl.engine.settings import Training
from mtl.errors import RequestError, unknown
from mtl.methods.core import core_method
from mtl.methods.placement import ALL_PLACEMENTS

FACTOR = 4
"""Width of the outer factor u; fixed in the reference (specs/adapter_methods §1.1)."""


@dataclass(frozen=True)
class AdaKronSettings:
    """``u = D_2 z``, ``v = D_1 z``, out = ``U·GELU(u ⊗ v) + b`` per site.

    D_2 maps D → 4, D_1 maps D → R/4, both with bias; ``(u ⊗ v)[i·R/4 + j] = u_i v_j`` per token;
    GELU is the exact one; U is (D,R). Weights start as N(0, 0.02), U included; biases at zero.
    L·(D·R/4 + R/4 + 4·D + 4 + R·D + D) parameters: 599,232 on BERT-base at R = 48.

    Attributes:
        bottleneck: R, a multiple of 4.
        placement: ``pfeiffer``, ``houlsby``, ``parallel``, or ``paper``: in the FFN block, before
            its dropout.
    """

    bottleneck: int = 48
    placement: str = "pfeiffer"

    def __post_init__(self) -> None:
        check_bottleneck(self.bottleneck)
        if self.placement not in ALL_PLACEMENTS:
            raise unknown("placement", self.placement, ALL_PLACEMENTS)


def check_bottleneck(bottleneck: int) -> None:
    """Refuse an R that is no product of 4 and something.

    Raises:
        RequestError: says the nearest that are.
    """
    if bottleneck < FACTOR or bottleneck % FACTOR:
        low = max(FACTOR, bottleneck // FACTOR * FACTOR)
        raise RequestError(
            f"bottleneck={bottleneck} must be a multiple of {FACTOR}, because the features are a "
            f"product of {FACTOR} and R/{FACTOR} numbers; the nearest are {low} and {low + FACTOR}."
        )


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


def _build(config: CoreConfig, hidden_size: int, size: int) -> tuple[nn.Module, nn.Module]:
    both = bert_linear(hidden_size, FACTOR + size // FACTOR)
    return KronDown(both), bert_linear(size, hidden_size)


TRAINING = Training(
    "spec methods §1.7",
    {
        "lr": 3e-4,
        "epochs": 20,
        "batch_size": 64,
        "warmup": 0.06,
        "weight_decay": 0.1,
        "select": "metric",
        "patience": 0,
    },
)
"""RoBERTa-large's, of most tasks; AdaMix shares them (§2.2)."""

METHOD = core_method(
    "adakron",
    AdaKronSettings,
    core="adakron",
    size=lambda settings, hidden_size: settings.bottleneck,
    build=_build,
    summary="bottleneck features as a Kronecker product of two small projections",
    citation="AdaKron, DetectiveMB/AdaKron; spec methods §1",
    training=TRAINING,
)
