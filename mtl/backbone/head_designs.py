"""The heads that there are, by name; :mod:`mtl.backbone.heads` builds them."""

from __future__ import annotations

from dataclasses import dataclass

from mtl.registry import Registry


@dataclass(frozen=True)
class HeadDesign:
    """How a head is built: linear layers, whether it reads the pooler, a fixed first layer."""

    layers: int
    use_pooler: bool
    fixed_first: bool = False


HEADS: Registry[HeadDesign] = Registry("head", HeadDesign)
HEADS.add("two_layer", HeadDesign(layers=2, use_pooler=False))
HEADS.add("linear", HeadDesign(layers=1, use_pooler=False))
HEADS.add("pooler_linear", HeadDesign(layers=1, use_pooler=True))
HEADS.add("frozen_pooler", HeadDesign(layers=2, use_pooler=False, fixed_first=True))


def reads_pooler(name: str) -> bool:
    """Whether what the head ``name`` computes depends on the base's own pooler."""
    design = HEADS.get(name)
    return design.use_pooler or design.fixed_first
