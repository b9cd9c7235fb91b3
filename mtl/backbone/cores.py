"""The registries through which rooms below put modules of theirs into an encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.methods.bottleneck import BottleneckLayer
    from torch import nn

    from mtl.backbone.injection import CoreConfig, FusionSite

CORES: dict[str, Callable[[CoreConfig, int, int], tuple[nn.Module, nn.Module]]] = {}
"""Core name → builder (config, D, R) → (down, up). Filled by ``mtl.methods``.

``down`` maps (B,T,D) to the features (B,T,R), activation included; ``up`` maps them back, linearly.
Both draw their weights from torch's global generator.
"""

FUSION_MODULES: dict[type, Callable[[BottleneckLayer, list[str], Any], FusionSite]] = {}
"""Fusion config class → builder of one site's module. Filled by ``mtl.compose``."""
