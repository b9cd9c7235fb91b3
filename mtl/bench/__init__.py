"""Measured cost for the user's own model: time, memory and launches of a step."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.bench.compose_step import Shape, measure_compose

__all__, __getattr__, __dir__ = exports(__name__, {"compose_step": ["Shape", "measure_compose"]})
