"""Which library reads an entry's files, and the copies that stock ``adapters`` looks for.

``load_adapter`` of stock ``adapters`` reads ``pytorch_adapter.bin`` unless it is told
``use_safetensors=True``. A pushed entry holds those files beside its safetensors: the same tensors,
nothing else, readable with ``torch.load(…, weights_only=True)``. They are in no file table and no
digest, and nothing of ours reads them.
"""

from __future__ import annotations

import io
from pathlib import Path

from mtl.backbone.head_designs import is_stock
from mtl.files import read_safetensors, write_bytes
from mtl.hub.boundary import json_file
from mtl.zoo import Manifest

# As mtl.backbone writes them; importing it would cost seconds, and a pull needs no torch.
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter.safetensors"
HEAD_WEIGHTS_FILE = "model_head.safetensors"
COPIES = {WEIGHTS_FILE: "pytorch_adapter.bin", HEAD_WEIGHTS_FILE: "pytorch_model_head.bin"}
"""Safetensors file → its copy for stock ``adapters``."""
OURS = "mtl_"
"""How an ``architecture`` of ours begins; stock ``adapters`` stops at it with a KeyError."""


def reader(folder: Path, manifest: Manifest) -> str:
    """The library that reads the weights in ``folder``: ``adapters``, ``peft`` or ``mtl``."""
    if manifest.kind != "adapter" or manifest.weights == "delta":
        return "mtl"
    if not is_stock(manifest.head):
        return "mtl"
    if manifest.weights == "peft":
        return "peft"
    config = folder / CONFIG_FILE
    if not config.is_file() or not (folder / WEIGHTS_FILE).is_file():
        return "mtl"
    stored = json_file(config, manifest.method)
    inner = stored.get("config") if isinstance(stored, dict) else None
    if not isinstance(inner, dict) or str(inner.get("architecture")).startswith(OURS):
        return "mtl"
    return "adapters"


def write_stock_copies(folder: Path, target: Path) -> list[str]:
    """Write into ``target`` the copy of each safetensors file of ``folder`` that has one.

    The bytes depend on the tensors only, so a second push sends nothing.

    Returns:
        Names of the files written.

    Raises:
        ZooError: a damaged file.
        RunError: the system refuses.
    """
    import torch

    written = []
    for name, copy in COPIES.items():
        if (folder / name).is_file():
            stream = io.BytesIO()
            torch.save(read_safetensors(folder / name)[0], stream)
            write_bytes(target / copy, stream.getvalue())
            written.append(copy)
    return written
