"""The frozen encoder and what hangs on it: loading, adapter sites, heads, fingerprints.

A thin layer over ``adapters``: :func:`init` makes an encoder accept our own adapter and fusion
modules without patching the library, and :data:`CORES` / :data:`FUSION_MODULES` are
filled by the rooms below (methods, compose), so this room imports neither.
"""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.backbone.adapter_files import load_adapter, save_adapter
    from mtl.backbone.backbones import Backbone, load_backbone, load_tokenizer
    from mtl.backbone.cores import CORES, FUSION_MODULES
    from mtl.backbone.fingerprint import tensors_fingerprint
    from mtl.backbone.head_designs import HEADS
    from mtl.backbone.heads import build_head, load_head, save_head
    from mtl.backbone.identity import Base
    from mtl.backbone.injection import (
        CoreConfig,
        FusionSite,
        bottleneck_layers,
        init,
    )
    from mtl.backbone.network import Network
    from mtl.backbone.reference import ModelReference, resolve_model
    from mtl.backbone.shapes import known_models, skeleton

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "adapter_files": ["load_adapter", "save_adapter"],
        "fingerprint": ["tensors_fingerprint"],
        "head_designs": ["HEADS"],
        "heads": ["build_head", "load_head", "save_head"],
        "cores": ["CORES", "FUSION_MODULES"],
        "injection": [
            "CoreConfig",
            "FusionSite",
            "bottleneck_layers",
            "init",
        ],
        "backbones": ["Backbone", "load_backbone", "load_tokenizer"],
        "identity": ["Base"],
        "network": ["Network"],
        "reference": ["ModelReference", "resolve_model"],
        "shapes": ["known_models", "skeleton"],
    },
)
