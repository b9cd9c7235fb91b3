"""Adapters to and from folders, in the files that ``adapters`` reads and writes.

``adapters`` logs missing or surplus weights at INFO level and goes on with random ones
(specs/adapters_library §6 #7); here both are errors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtl.errors import ZooError
from mtl.files import read_json, writing

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter.safetensors"


def save_adapter(encoder: Any, name: str, folder: Path, model_id: str) -> None:
    """Write ``adapter_config.json`` and ``adapter.safetensors`` of adapter ``name``.

    ``model_id`` replaces ``model_name``, where ``adapters`` records whatever path the encoder was
    loaded from.

    Raises:
        RunError: the system refuses (full disk, read-only folder).
    """
    path = folder / CONFIG_FILE
    with writing(f"the adapter into {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        encoder.save_adapter(str(folder), name, use_safetensors=True)
        config = json.loads(path.read_text(encoding="utf-8"))
        config["model_name"] = model_id
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_adapter(encoder: Any, folder: Path, name: str, config: Any) -> None:
    """Add the adapter stored in ``folder`` to ``encoder`` under ``name``.

    Args:
        config: the adapter config object of the method; the stored one must say the same width.

    Raises:
        ZooError: files missing or damaged, weights missing, surplus, or of another shape.
    """
    stored = read_json(folder / CONFIG_FILE)
    width = encoder.config.hidden_size
    if stored.get("hidden_size") != width:
        raise ZooError(
            f"Cannot load the adapter in {folder}: it was trained at hidden size "
            f"{stored.get('hidden_size')}, the encoder has {width}."
        )
    if not (folder / WEIGHTS_FILE).is_file():
        raise ZooError(f"Cannot load the adapter in {folder}: {WEIGHTS_FILE} is missing.")
    info: dict[str, Any] = {}
    encoder.add_adapter(name, config=config)
    try:
        encoder.load_adapter(
            str(folder), load_as=name, use_safetensors=True, loading_info=info, set_active=False
        )
    except Exception as error:
        encoder.delete_adapter(name)
        raise ZooError(f"Cannot load the adapter in {folder}: {error}") from error
    problems = {
        key: info.get(key)
        for key in ("missing_keys", "unexpected_keys", "error_msgs")
        if info.get(key)
    }
    if problems:
        encoder.delete_adapter(name)
        raise ZooError(
            f"Cannot load the adapter in {folder}: its weights do not fit the encoder: {problems}."
        )
