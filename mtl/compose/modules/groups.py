"""The torch side of :mod:`mtl.compose.groups`: the gates of the rows on their way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mtl.errors import RequestError, unknown


class RowGates:
    """G groups' gates for K sources, and those of the batch that is on its way.

    Attributes:
        column: which column of the data the groups are the values of.
        counts: group → its training rows, in the order of ``gates``.
        gates: (G,K), shared by all sites.
        rows: (N,K), of the sequences of the batch in :meth:`around`.
        chosen: (K,1), where all rows are answered with one group's gates; None by each row's own.
    """

    def __init__(self, column: str, counts: Mapping[str, int], gates: nn.Parameter) -> None:
        self.column, self.counts, self.gates = column, counts, gates
        self.rows: Tensor | None = None
        self.chosen: Tensor | None = None
        self._codes = {name: code for code, name in enumerate(counts)}

    @contextmanager
    def around(self, batch: Mapping[str, Any]) -> Iterator[None]:
        """Have the gates of the rows of ``batch`` in :attr:`rows`; unseen groups' are 1.

        Raises:
            RequestError: the batch does not say of which groups its rows are.
        """
        if self.chosen is not None:
            yield
            return
        if batch.get("group") is None:
            raise RequestError(
                f"The answers depend on the column {self.column!r}, and these rows come without it."
            )
        pooled = len(self._codes)
        codes = torch.tensor([self._codes.get(name, pooled) for name in batch["group"]])
        table = torch.cat([self.gates, self.gates.new_ones(1, self.gates.shape[1])])
        each = len(batch["input_ids"]) // len(codes)  # the choices of a row stand side by side
        self.rows = table[codes.to(table.device)].repeat_interleave(each, 0)
        try:
            yield
        finally:
            self.rows = None

    def choose(self, group: str | None) -> None:
        """Answer every row with the gates of ``group``, or with the pooled ones.

        Raises:
            RequestError: there is no such group; says which there are.
        """
        if group is None:
            gate = torch.ones_like(self.gates[0])
        elif group in self._codes:
            gate = self.gates[self._codes[group]].detach().clone()
        else:
            raise unknown(f"group ({self.column})", group, self._codes)
        self.chosen = gate.unsqueeze(1)

    def away(self, std: float) -> Tensor:
        """The penalty: how far the gates are from the pool."""
        return (self.gates - 1).square().sum() / (2 * std**2 * sum(self.counts.values()))
