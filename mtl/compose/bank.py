"""K frozen sources at one site as a few large products instead of a loop.

For plain sources, with S = Σ R_k the total bottleneck::

    features(z) = act([D_1; …; D_K] z + [c_1; …; c_K])                    (B,T,S), one product
    W           = rows of U_k^T scaled by omega_k, stacked                (S,D)
    mixture     = features · W + Σ_k omega_k ⊙ b_k                        (B,T,D), one product

which is ``Σ_k omega_k ⊙ (U_k h_k + b_k)`` exactly, without any (B,T,K,D) tensor and with kernel
launches that do not grow with K.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.methods.source import Source


class Bank(nn.Module):
    """The K sources of one site.

    Attributes:
        up: (S,D), row s holds column s of its source's U.
        bias: (K,D), the up-projection biases, in the order of the sources.
        owner: (S,), which source a feature belongs to.
        sizes: R_k per source.

    Features are ordered by group of an equal key (plain sources by activation); ``owner`` maps them
    back, so omega and bias keep the order in which the sources were given.
    """

    up: Tensor
    bias: Tensor
    owner: Tensor

    def __init__(self, sources: Sequence[Source]) -> None:
        super().__init__()
        if not sources:
            raise ValueError("a bank needs at least one source")
        members: dict[Hashable, list[int]] = {}
        for index, source in enumerate(sources):
            members.setdefault(source.key, []).append(index)
        self.groups = nn.ModuleList()
        order: list[int] = []
        for indices in members.values():
            chosen = [sources[i] for i in indices]
            self.groups.append(type(chosen[0]).stack(chosen))
            order += indices
        maps = [source.up() for source in sources]
        self.sizes = [weight.shape[1] for weight, _ in maps]
        device = maps[0][0].device
        owner = torch.cat([torch.full((self.sizes[i],), i, device=device) for i in order])
        up = torch.cat([maps[i][0].t() for i in order]).contiguous()
        self.register_buffer("up", up, persistent=False)
        self.register_buffer("bias", torch.stack([b for _, b in maps]), persistent=False)
        self.register_buffer("owner", owner, persistent=False)
        # Equal bottlenecks in the given order let omega broadcast instead of being gathered.
        self._regular = order == sorted(order) and len(set(self.sizes)) == 1

    @property
    def count(self) -> int:
        """K."""
        return len(self.sizes)

    def features(self, z: Tensor) -> Tensor:
        """(B,T,D) → (B,T,S): all sources' features, in the order of ``owner``."""
        found = [group(z) for group in self.groups]
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)

    def fold(self, omega: Tensor) -> tuple[Tensor, Tensor]:
        """Fold omega (K,D) or (K,1) into the up-projections: W (S,D) and b (D,)."""
        weight, bias = self.scaled(omega)
        return weight, bias.sum(0)

    def fold_all(self, omega: Tensor, up: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The same for N banks that are laid out as this: W (N,S,D) and b (N,D).

        Args:
            omega: (N,K,D) or (N,K,1). up, bias: theirs, (N,S,D) and (N,K,D), or one for all.
        """
        if self._regular:
            rows = up.unflatten(-2, (self.count, self.sizes[0]))
            weight = (rows * omega.unsqueeze(-2)).flatten(-3, -2)
        else:
            weight = up * omega[:, self.owner]
        return weight, (bias * omega).sum(-2)

    def scaled(self, omega: Tensor) -> tuple[Tensor, Tensor]:
        """omega times the up-projections, W (S,D), and times the biases, (K,D)."""
        if self._regular:
            rows = self.up.view(self.count, self.sizes[0], self.up.shape[1])
            weight = (rows * omega.unsqueeze(1)).view_as(self.up)
        else:
            weight = self.up * omega[self.owner]
        return weight, self.bias * omega

    def mix(self, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """``features(z) · weight + bias``: (B,T,D), the mixture for folded omega."""
        return functional.linear(self.features(z), weight.t(), bias)

    def mix_rows(self, z: Tensor, gates: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B,T,D): the mixture with gates (B,K) for every row, over what :meth:`scaled` gave."""
        features = self.features(z) * gates[:, self.owner].unsqueeze(1)
        return functional.linear(features, weight.t()) + (gates @ bias).unsqueeze(1)
