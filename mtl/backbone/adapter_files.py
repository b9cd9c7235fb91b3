"""Adapters to and from folders, in the files that ``adapters`` reads and writes.

``adapters`` logs missing or surplus weights at INFO level and goes on with random ones
(docs/methods.md#the-library-underneath); here both are errors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from adapters.loading import AdapterLoader
from torch import Tensor

from mtl.errors import ZooError
from mtl.files import read_json, write_safetensors, writing

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
    loader = AdapterLoader(encoder, use_safetensors=True)
    shared = f".shared_parameters.{name}."

    def save_weights(target: str, wanted: Callable[[str], bool]) -> None:
        # On this one loader. Its own writer refuses tensors that share memory, as prefixes do; and
        # of an encoder without a model around it, it forgets the parameters that layers share. It
        # reads those, under any adapter name, if all names are as in a model with a head.
        tensors = loader.weights_helper.state_dict(lambda key: wanted(key) or shared in f".{key}")
        if any(shared in f".{key}" for key in tensors):
            tensors = {f"{encoder.base_model_prefix}.{key}": tensors[key] for key in tensors}
        write_safetensors(Path(target) / WEIGHTS_FILE, _once(tensors))

    loader.weights_helper.save_weights = save_weights
    with writing(f"the adapter into {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        loader.save(str(folder), name)
        config = json.loads(path.read_text(encoding="utf-8"))
        config["model_name"] = model_id
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _once(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor under one name: a pool of prefixes hangs in every layer of the encoder."""
    kept: dict[int, str] = {}
    for name in sorted(tensors, key=lambda name: (name.count("."), name)):
        kept.setdefault(tensors[name].data_ptr(), name)
    return {name: tensors[name] for name in kept.values()}


def alone(encoder: Any, missing: Iterable[str]) -> list[str]:
    """The missing names that are no further name of a tensor which was there."""
    gone = set(missing)
    if not gone:
        return []
    state = encoder.state_dict()
    there = {value.data_ptr() for name, value in state.items() if name not in gone}
    return sorted(name for name in gone if name not in state or state[name].data_ptr() not in there)


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
    info["missing_keys"] = alone(encoder, info.get("missing_keys") or ())
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
