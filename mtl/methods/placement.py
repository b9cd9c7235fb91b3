"""Where a bottleneck adapter sits in a layer, and what must agree for sources to be composed.

==========  ================================================================================
placement   with h the FFN (or attention) output after dropout and x the block's input
==========  ================================================================================
pfeiffer    FFN only: ``LN(u(LN(h + x)) + h + x)``, the layer's own LN twice
houlsby     after attention and FFN: ``LN(u(h) + h + x)``
parallel    beside the FFN: ``LN(u(x) + h + x)``
paper       FFN only, before the block's dropout: ``LN(dropout(u(g) + g) + x)``, g the FFN output
            before dropout (AdaKron's and AdaMix's code)
==========  ================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters import BnConfig

_CLASSES = {"pfeiffer": "SeqBnConfig", "houlsby": "DoubleSeqBnConfig", "parallel": "ParBnConfig"}
"""The stock config of each placement, by its name in ``adapters``."""

PLACEMENTS = tuple(_CLASSES)


ALL_PLACEMENTS = (*PLACEMENTS, "paper")
"""What our own cores can be told."""

_PFEIFFER = {
    "mh_adapter": False,
    "output_adapter": True,
    "is_parallel": False,
    "original_ln_before": True,
    "original_ln_after": True,
    "residual_before_ln": True,
    "adapter_residual_before_ln": False,
    "ln_before": False,
    "ln_after": False,
}
_HOULSBY = {**_PFEIFFER, "mh_adapter": True, "original_ln_before": False}
_FIELDS: dict[str, dict[str, Any]] = {
    "pfeiffer": {**_PFEIFFER, "scaling": 1.0},
    "houlsby": {**_HOULSBY, "scaling": 1.0},
    "parallel": {
        **_PFEIFFER,
        "is_parallel": True,
        "original_ln_before": False,
        "scaling": 4.0,
    },
    "paper": {**_HOULSBY, "mh_adapter": False, "scaling": 1.0, "late_dropout": True},
}
"""What the stock configs say of the sites: entries record it, and planning a run compares it,
without ``adapters`` (a test holds them together)."""


def stock_config(placement: str, **values: Any) -> BnConfig:
    """A bottleneck config of ``adapters`` for one of :data:`PLACEMENTS`."""
    import adapters

    config: BnConfig = getattr(adapters, _CLASSES[placement])(**values)
    return config


def placement_fields(placement: str) -> dict[str, Any]:
    """The config fields that a placement fixes, for configs of our own cores.

    ``paper`` is one of ours: Houlsby's order in the FFN block alone, with the block's dropout
    behind adapter and residual.
    """
    return {**_FIELDS[placement], "leave_out": []}


def signature(config: Any) -> dict[str, Any]:
    """The placement signature of a bottleneck config: sites, LayerNorm and residual options.

    Sources compose when their signatures are equal: then they share one input per site and one
    residual around their sum. The bottleneck R, the activation and the method may differ.
    """
    found = {key: config[key] for key in (*_PFEIFFER, "leave_out")}
    if getattr(config, "late_dropout", False):
        found["late_dropout"] = True
    return found


def signature_of(placement: str) -> dict[str, Any]:
    """The :func:`signature` of every config at ``placement``."""
    fields = placement_fields(placement)
    return {key: value for key, value in fields.items() if key != "scaling"}
