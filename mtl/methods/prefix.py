"""Prefix tuning: learned keys and values before the sequence in every attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.methods.library import library_method

IN_ATTENTION = (
    "its prefixes act through the attention's softmax, which is no sum of outputs per source"
)


@dataclass(frozen=True)
class PrefixSettings:
    """Per layer ``attention(q, [P_k; k], [P_v; v])`` with P of ``prefix_length`` learned rows.

    Attributes:
        prefix_length: rows of P_k and of P_v.
        flat: train P itself: 2·L·length·D parameters (184,320 on BERT-base at length 10). Otherwise
            an embedding goes through an MLP, which is trained and stored in its place.
        mlp_bottleneck: width of that MLP.
        dropout: on the prefixes, while training.
    """

    prefix_length: int = 10
    flat: bool = True
    mlp_bottleneck: int = 512
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_length(self.prefix_length)
        if self.mlp_bottleneck < 1:
            raise RequestError(f"mlp_bottleneck={self.mlp_bottleneck} must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise RequestError(f"dropout={self.dropout} must be at least 0 and below 1.")


def check_length(prefix_length: int) -> None:
    """Refuse a prefix of no rows."""
    if prefix_length < 1:
        raise RequestError(f"prefix_length={prefix_length} must be at least 1.")


def _config(settings: PrefixSettings, hidden_size: int) -> Any:
    from adapters import PrefixTuningConfig

    return PrefixTuningConfig(
        flat=settings.flat,
        prefix_length=settings.prefix_length,
        bottleneck_size=settings.mlp_bottleneck,
        dropout=settings.dropout,
    )


METHOD = library_method(
    "prefix",
    PrefixSettings,
    _config,
    summary="learned keys and values in front of every attention",
    citation="Li and Liang 2021, arXiv:2101.00190",
    training=Training(
        "its paper's are not recorded here; the rate of public re-runs of UniPELT's comparison",
        {"lr": 2e-4, "epochs": 30, "patience": "5 epochs"},
    ),
    refusal=IN_ATTENTION,
)
