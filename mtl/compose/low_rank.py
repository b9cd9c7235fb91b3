"""Low-rank sources in stage two: a scaled sum of their deltas beside every linear module.

At every linear module that the sources change, with x its input and K sources of rank R_k::

    out = linear(x) + Σ_k omega_k ⊙ (up_k · (down_k · x))

omega_k is a vector over the module's outputs (per dimension) or a number (uniform), one per layer
and module; the ++ forms share it among the layers, module by module, since modules differ in what
their outputs are, and partly in shape.

One hook per module computes all K sources: with S = Σ R_k, ``features = x · [down_1; …; down_K]^T``
(B,T,S) and ``features · W`` (B,T,out), W (S,out) holding omega. Where S is so large that this costs
more than one dense product per token (VeRA), the delta is folded to one (out,in) matrix first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.backbone.injection import FusionSite
from mtl.backbone.linear import add_delta, linear_sites
from mtl.compose.bank import Bank
from mtl.compose.composition import MIXED
from mtl.errors import RequestError
from mtl.methods.low_rank import Factors
from mtl.methods.modules.low_rank import low_rank_sources


class LinearBank(Bank):
    """The K low-rank sources of one linear module: x (B,T,in) → (B,T,out).

    Attributes:
        dense: whether ``fold`` gives the whole delta (out,in) in place of W (S,out): cheaper per
            token where S·(in + out) exceeds in·out.
    """

    def __init__(self, factors: Sequence[Factors]) -> None:
        super().__init__([found.source() for found in factors])
        down, up = factors[0].down, factors[0].up
        inputs, outputs = down.shape[1], up.shape[0]
        self.dense = sum(self.sizes) * (inputs + outputs) > inputs * outputs

    def fold(self, omega: Tensor) -> tuple[Tensor, Tensor]:
        """omega (K,out) or (K,1) in W (S,out), or in the delta (out,in); the bias (out,) is 0."""
        weight, bias = super().fold(omega)
        if self.dense:
            down: Any = self.groups[0]  # all sources are linear: one group
            weight = weight.t() @ down.weight
        return weight, bias

    def mix(self, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The scaled sum of the deltas for folded omega: (B,T,in) → (B,T,out)."""
        return functional.linear(z, weight) if self.dense else super().mix(z, weight, bias)


def are_low_rank(encoder: Any, sources: Sequence[str]) -> bool:
    """Whether ``sources`` are low-rank ones; False for bottleneck sources.

    Raises:
        RequestError: some are, some are not.
    """
    known = low_rank_sources(encoder)
    kinds = {name in known for name in sources}
    if len(kinds) > 1:
        raise RequestError(MIXED)
    return kinds == {True}


def add_linear_sites(
    encoder: Any, sources: Sequence[str], build: Callable[[Bank], FusionSite]
) -> dict[str, Any]:
    """Put ``build(bank)`` beside every linear module that the low-rank ``sources`` change.

    Returns:
        The sites by key, ``"0.q"``, ``"0.v"``, ``"1.q"``, …, bottom up.

    Raises:
        RequestError: the sources change different modules.
    """
    known = low_rank_sources(encoder)
    # The banks copy what they need; of VeRA's factors two copies would be gigabytes.
    factors = [known.pop(name) for name in sources]
    first = list(factors[0])
    for name, other in zip(sources, factors, strict=True):
        if list(other) != first:
            raise RequestError(
                f"Cannot compose {sources[0]} with {name}: they change different linear modules "
                f"({', '.join(sorted({*first} ^ {*other})[:4])}, …)."
            )
    linears = linear_sites(encoder, list(dict.fromkeys(key.partition(".")[2] for key in first)))
    sites: dict[str, Any] = {}
    for key in first:
        site = build(LinearBank([found[key] for found in factors])).train(encoder.training)
        add_delta(linears[key], site)
        sites[key] = site
    # One registration on the encoder, so that `.to(device)` and `.train()` reach them.
    encoder.register_module(
        "low_rank_composition",
        nn.ModuleDict({key.replace(".", "_"): site for key, site in sites.items()}),
    )
    return sites
