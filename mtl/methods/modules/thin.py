"""Low-rank tensor formats as thin products: ``W = left · right`` without ever building W.

A tensor T with modes of sizes d_1 … d_n is a matrix, rows the first s modes, columns the rest, both
row-major::

    cp      T[i,j,…] = Σ_a w[a] F_1[i,a] F_2[j,a] …                     k = R
    tucker  T[i,j,…] = Σ_abc C[a,b,c] F_1[i,a] F_2[j,b] F_3[k,c]        k = R, R² for 2 + 2 modes
    tt      T[i,j,…] = Σ_ab G_1[0,i,a] G_2[a,j,b] G_3[b,k,0]            k = R
    tr      T[i,j,…] = Σ_abc Q_1[a,i,b] Q_2[b,j,c] Q_3[c,k,a]           k = R²

k is the width of the thin product. A token costs (rows + columns)·k instead of rows·columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

START = 0.1
"""Every tensor starts uniform in [-START, START]."""


class TensorMap(nn.Module):
    """A matrix in one of the formats: ``forward(x) = x · W`` for x (…, rows) → (…, columns).

    Args:
        format: a name in :data:`mtl.methods.tensorized.FORMATS`.
        rows, columns: sizes of the modes that make up rows and columns.
        rank: R, the same for every mode.
    """

    def __init__(self, format: str, rows: Sequence[int], columns: Sequence[int], rank: int) -> None:
        super().__init__()
        self.format, self.split = format, len(rows)
        modes = [*rows, *columns]
        shapes: list[tuple[int, ...]]
        if format in {"cp", "tucker"}:
            shapes = [(mode, rank) for mode in modes]
        else:
            ends = (1, 1) if format == "tt" else (rank, rank)
            inner = [rank] * (len(modes) - 1)
            shapes = list(zip([ends[0], *inner], modes, [*inner, ends[1]], strict=True))
        self.factors = nn.ParameterList([_uniform(*shape) for shape in shapes])
        if format == "cp":
            self.weights = _uniform(rank)
        elif format == "tucker":
            self.core = _uniform(*[rank] * len(modes))
        self._held: tuple[Tensor, Tensor] | None = None

    def thin(self) -> tuple[Tensor, Tensor]:
        """left (rows, k) and right (k, columns)."""
        factors = list(self.factors)
        first, last = factors[: self.split], factors[self.split :]
        if self.format == "cp":
            # laid out by rows: with a thin transposed matrix the backward pass is slow on CPUs
            return _khatri_rao(first) * self.weights, _khatri_rao(last).t().contiguous()
        if self.format == "tucker":
            return self._tucker(first, last)
        left, right = reduce(_join, first), reduce(_join, last)  # (a, rows, c), (c, columns, a)
        left = left.permute(1, 0, 2).flatten(1)
        right = right.permute(2, 0, 1).flatten(0, 1)
        return left, right

    def _tucker(self, first: list[Tensor], last: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The core goes to the side with more modes, so that k is the smaller of the two ranks."""
        rank = self.core.shape[0]
        core = self.core.reshape(rank ** len(first), rank ** len(last))
        left, right = _kron(first), _kron(last)
        if len(first) >= len(last):
            return left @ core, right.t()
        return left, core @ right.t()

    def hold(self, held: bool) -> None:
        """Multiply the factors once and keep that, or in every call again."""
        self._held = self.thin() if held else None

    def forward(self, x: Tensor) -> Tensor:
        left, right = self._held or self.thin()
        return (x @ left) @ right

    def dense(self) -> tuple[Tensor, Tensor]:
        """What stage two sees of an up-projection: U (columns, rows) and a bias of zeros."""
        left, right = self.thin()
        return (left @ right).t(), right.new_zeros(right.shape[1])


def _uniform(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape).uniform_(-START, START))


def _khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """Columns of the factors multiplied out: (d_1·d_2·…, R)."""
    return reduce(lambda a, b: (a.unsqueeze(1) * b.unsqueeze(0)).flatten(0, 1), factors)


def _kron(factors: Sequence[Tensor]) -> Tensor:
    """Kronecker product of the factors: (d_1·d_2·…, R^n)."""
    return reduce(torch.kron, factors)


def _join(a: Tensor, b: Tensor) -> Tensor:
    """Contract two links of a chain: (p, d, q), (q, e, r) → (p, d·e, r)."""
    return torch.einsum("pdq,qer->pder", a, b).flatten(1, 2)
