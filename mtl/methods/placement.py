"""Where a bottleneck adapter sits in a layer, and what must agree for sources to be composed.

==========  ================================================================================
placement   with h the FFN (or attention) output after dropout and x the block's input
==========  ================================================================================
pfeiffer    FFN only: ``LN(u(LN(h + x)) + h + x)``, the layer's own LN twice
houlsby     after attention and FFN: ``LN(u(h) + h + x)``
parallel    beside the FFN: ``LN(u(x) + h + x)``
paper       FFN only, before the block's dropout: ``LN(dropout(u(g) + g) + x)``, g the FFN output
            before dropout (AdaKron and AdaMix; specs/adapter_methods §1.2)
==========  ================================================================================
"""

from __future__ import annotations

from typing import Any

from adapters import BnConfig, DoubleSeqBnConfig, ParBnConfig, SeqBnConfig

PLACEMENTS: dict[str, type[BnConfig]] = {
    "pfeiffer": SeqBnConfig,
    "houlsby": DoubleSeqBnConfig,
    "parallel": ParBnConfig,
}


ALL_PLACEMENTS = (*PLACEMENTS, "paper")
"""What our own cores can be told."""


def placement_fields(placement: str) -> dict[str, Any]:
    """The config fields that a placement fixes, for configs of our own cores.

    ``paper`` is one of ours: Houlsby's order in the FFN block alone, with the block's dropout
    behind adapter and residual.
    """
    if placement == "paper":
        fields = placement_fields("houlsby")
        return {**fields, "mh_adapter": False, "late_dropout": True}
    stock = PLACEMENTS[placement](reduction_factor=1)
    return {key: stock[key] for key in (*_SIGNATURE, "scaling")}


_SIGNATURE = (
    "mh_adapter",
    "output_adapter",
    "is_parallel",
    "original_ln_before",
    "original_ln_after",
    "residual_before_ln",
    "adapter_residual_before_ln",
    "ln_before",
    "ln_after",
    "leave_out",
)


def signature(config: Any) -> dict[str, Any]:
    """The placement signature of a bottleneck config: sites, LayerNorm and residual options.

    Sources compose when their signatures are equal: then they share one input per site and one
    residual around their sum. The bottleneck R, the activation and the method may differ.
    """
    found = {key: config[key] for key in _SIGNATURE}
    if getattr(config, "late_dropout", False):
        found["late_dropout"] = True
    return found
