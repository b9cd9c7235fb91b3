"""LoReFT: low-rank interventions on the first tokens' representations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.lazy import later
from mtl.methods.library import library_method


@dataclass(frozen=True)
class LoReftSettings:
    """After each layer, at the first tokens: ``h + R^T (W h + b − R h)``, R orthonormal rows.

    Attributes:
        rank: rows of R and W.
        prefix_positions: how many tokens at the start are changed.
        suffix_positions: how many of the last tokens that are no padding, by R, W and b of their
            own; a text of fewer is changed at all of them.
        dropout: while training.
    """

    rank: int = 1
    prefix_positions: int = 3
    suffix_positions: int = 0
    dropout: float = 0.05

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise RequestError(f"rank={self.rank} must be at least 1.")
        if self.prefix_positions < 0 or self.suffix_positions < 0:
            raise RequestError("prefix_positions and suffix_positions must not be negative.")
        if self.prefix_positions + self.suffix_positions == 0:
            raise RequestError("prefix_positions and suffix_positions are both 0: nothing changes.")
        if not 0 <= self.dropout < 1:
            raise RequestError(f"dropout={self.dropout} must be at least 0 and below 1.")


def _config(settings: LoReftSettings, hidden_size: int) -> Any:
    from adapters import LoReftConfig

    if settings.rank > hidden_size:
        raise RequestError(f"rank={settings.rank} must be at most the hidden size {hidden_size}.")
    return LoReftConfig(
        r=settings.rank,
        prefix_positions=settings.prefix_positions,
        suffix_positions=settings.suffix_positions,
        dropout=settings.dropout,
        # Otherwise `adapters` makes interventions for a suffix of no tokens, too.
        tied_weights=settings.suffix_positions == 0,
    )


METHOD = library_method(
    "loreft",
    LoReftSettings,
    _config,
    # What R is made of: Householder vectors, and signs that torch cuts to whole numbers, so that
    # the least decay would make R zero.
    undecayed="projection.parametrizations.weight.original",
    ready=later("mtl.methods.modules.loreft:ready"),
    summary="low-rank interventions on the first tokens after each layer",
    citation="Wu et al. 2024, arXiv:2404.03592",
    training=Training(
        "its authors' GLUE example (stanfordnlp/pyreft, examples/loreft), epochs ours",
        {"lr": 6e-4, "epochs": 30, "warmup": 0.09, "select": "metric", "patience": 0},
    ),
    refusal="it rewrites hidden states of a few tokens in place of adding to all of them",
)
