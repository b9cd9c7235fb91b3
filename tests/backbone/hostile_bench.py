"""Folders of models with one thing changed, and what has to be refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl.backbone import load_backbone, load_tokenizer, skeleton
from mtl.backbone.backbones import load_text_encoder
from mtl.errors import RequestError

Change = dict[str, Any]

ORDERS: dict[str, Change] = {
    "_attn_implementation_internal": {"_attn_implementation_internal": "evil/kernel"},
    "_attn_implementation": {"_attn_implementation": "evil/kernel@main:run"},
    "attn_implementation": {"attn_implementation": "evil/kernel"},
    "a wrapped one": {"attn_implementation": "sdpa|evil/kernel"},
    "of flash attention": {"attn_implementation": "flash_attention_2"},  # kernels fetches it
    "of experts": {"_experts_implementation_internal": "sdpa"},
    "of a part": {"attn_implementation": {"": "sdpa", "text_config": "evil/kernel"}},
    "inside": {"text_config": {"_attn_implementation_internal": "evil/kernel"}},
    "auto_map": {"auto_map": {"AutoModel": "modeling_evil.Evil"}},
    "elsewhere": {"auto_map": {"AutoConfig": "evil/repo--configuration_evil.Evil"}},
    "quantized": {"quantization_config": {"quant_method": "quark", "modules": ["os"]}},
    "compressed": {"compression_config": {"quant_method": "compressed-tensors"}},
    "another config": {"configuration_files": ["config.4.0.0.json"]},
    "other weights": {"transformers_weights": "weights.bin"},
    "generation": {"custom_generate": "evil/generate"},
    "another name": {
        "attribute_map": {"harmless": "_attn_implementation_internal"},
        "harmless": "evil/kernel",
    },
    "read as another": {"attribute_map": {"_attn_implementation": "sdpa"}, "sdpa": "evil/kernel"},
    "other parts": {"sub_configs": {"text_config": "evil"}},
}


def put(source: str, target: Path, file: str = "config.json", **values: Any) -> Path:
    """A copy of a model's folder with more keys in one of its files."""
    shutil.copytree(source, target)
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps({**content, **values}))
    return target


def refused(load: Callable[[str], Any], folder: Path, *parts: str) -> None:
    with pytest.raises(RequestError) as raised:
        load(str(folder))
    for part in parts:
        assert part in str(raised.value), str(raised.value)


LOADERS: list[Callable[[str], Any]] = [load_backbone, load_tokenizer, load_text_encoder, skeleton]
