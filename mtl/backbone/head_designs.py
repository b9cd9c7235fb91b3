"""The heads that there are, by name; :mod:`mtl.backbone.heads` builds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtl.registry import Registry


@dataclass(frozen=True)
class HeadDesign:
    """How a head is built: linear layers, and what they read.

    Attributes:
        use_pooler: it reads the base's pooler.
        fixed_first: its first layer is never trained.
        mean: it reads the mean over the real tokens, not the first one.
    """

    layers: int
    use_pooler: bool
    fixed_first: bool = False
    mean: bool = False


HEADS: Registry[HeadDesign] = Registry("head", HeadDesign)
HEADS.add("two_layer", HeadDesign(layers=2, use_pooler=False))
HEADS.add("linear", HeadDesign(layers=1, use_pooler=False))
HEADS.add("pooler_linear", HeadDesign(layers=1, use_pooler=True))
HEADS.add("frozen_pooler", HeadDesign(layers=2, use_pooler=False, fixed_first=True))
HEADS.add("mean", HeadDesign(layers=1, use_pooler=False, mean=True))
STOCK_REFUSAL = "its head reads the mean over the tokens, those of stock adapters the first one"
"""Why no stock library answers with a head ``mean``."""


def reads_pooler(name: str) -> bool:
    """Whether what the head ``name`` computes depends on the base's own pooler."""
    design = HEADS.get(name)
    return design.use_pooler or design.fixed_first


def is_stock(head: Any) -> bool:
    """Whether stock ``adapters`` computes what a manifest's ``head`` says (designs we know)."""
    name = head.get("design") if isinstance(head, Mapping) else None
    return not (isinstance(name, str) and name in HEADS and HEADS.get(name).mean)
