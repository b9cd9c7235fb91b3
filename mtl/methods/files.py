"""Files of methods that neither ``adapters`` nor ``peft`` knows, and of changed base tensors.

``adapter.safetensors`` holds tensors by their name without the adapter's own; the JSON beside it
names an ``architecture`` of ours, at which stock ``adapters`` stops with a ``KeyError`` instead of
building something else. ``delta.safetensors`` holds base tensors by their name in the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl.backbone.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from mtl.errors import ZooError
from mtl.files import read_json, read_safetensors, write_json, write_safetensors

DELTA_FILE = "delta.safetensors"


def save_own(
    folder: Path,
    method: str,
    settings: Any,
    encoder: Any,
    tensors: Mapping[str, Tensor],
    base: str,
    **more: Any,
) -> None:
    """Write ``adapter_config.json`` and ``adapter.safetensors`` of a method of ours.

    ``more`` goes into the config beside the settings, for those who read it.
    """
    from mtl import __version__

    write_json(
        folder / CONFIG_FILE,
        {
            "config": {
                "architecture": f"mtl_{method.replace('-', '_')}",
                **asdict(settings),
                **more,
            },
            "hidden_size": encoder.config.hidden_size,
            "model_name": base,
            "model_type": encoder.config.model_type,
            "version": f"mtl.{__version__}",
        },
    )
    write_safetensors(folder / WEIGHTS_FILE, tensors)


def read_own(folder: Path, method: str, encoder: Any) -> dict[str, Tensor]:
    """The tensors that :func:`save_own` wrote, after a look at what they are.

    Raises:
        ZooError: files missing or damaged, of another method, or of another width.
    """
    stored = read_json(folder / CONFIG_FILE)
    config = stored.get("config") if isinstance(stored, dict) else None
    found = config.get("architecture") if isinstance(config, dict) else None
    wanted = f"mtl_{method.replace('-', '_')}"
    width = encoder.config.hidden_size
    if found != wanted or stored.get("hidden_size") != width:
        raise ZooError(
            f"Cannot load the adapter in {folder}: it is {found!r} at hidden size "
            f"{stored.get('hidden_size') if isinstance(stored, dict) else None}; expected "
            f"{wanted!r} at {width}."
        )
    return read_safetensors(folder / WEIGHTS_FILE)[0]


@torch.no_grad()
def fill(what: str, parameters: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Copy stored tensors into ``parameters`` of the same names and shapes.

    Raises:
        ZooError: names or shapes differ; says which.
    """
    expected = {name: tuple(value.shape) for name, value in parameters.items()}
    found = {name: tuple(value.shape) for name, value in stored.items()}
    if expected != found:
        names = sorted({*expected, *found})
        wrong = [
            f"{name}: expected {expected.get(name, 'none')}, found {found.get(name, 'none')}"
            for name in names
            if expected.get(name) != found.get(name)
        ]
        raise ZooError(
            f"The stored weights of {what} do not fit: {len(wrong)} tensors differ, the first "
            f"{'; '.join(wrong[:3])}."
        )
    for name, value in parameters.items():
        value.copy_(stored[name])


def save_delta(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write changed base tensors, whole."""
    write_safetensors(folder / DELTA_FILE, tensors)


def save_sparse_delta(
    folder: Path, tensors: Mapping[str, Tensor], changed: Mapping[str, Tensor]
) -> None:
    """Write only the entries of base tensors where ``changed`` (bool, same shape) is true.

    Per tensor ``<name>#index``, flat positions (int64), and ``<name>#value``, the new values.
    """
    found: dict[str, Tensor] = {}
    for name, where in changed.items():
        index = where.reshape(-1).nonzero().squeeze(1)
        if len(index):
            found[f"{name}#index"] = index
            found[f"{name}#value"] = tensors[name].detach().reshape(-1)[index]
    write_safetensors(folder / DELTA_FILE, found)


@torch.no_grad()
def load_delta(folder: Path, encoder: Any) -> dict[str, Tensor]:
    """Put the changed base tensors of ``folder`` into ``encoder``.

    Returns:
        Name → the changed parameter; of sparse ones, too.

    Raises:
        ZooError: missing or damaged, a name that the base has not, or another shape.
    """
    stored, _ = read_safetensors(folder / DELTA_FILE)
    own = dict(encoder.named_parameters())
    whole = {name: value for name, value in stored.items() if "#" not in name}
    changed: dict[str, Tensor] = {name: own[name] for name in whole if name in own}
    fill(str(folder / DELTA_FILE), changed, whole)
    for name in sorted({key.partition("#")[0] for key in stored if "#" in key}):
        index, value = stored.get(f"{name}#index"), stored.get(f"{name}#value")
        if (
            name not in own
            or index is None
            or value is None
            or index.dtype != torch.int64
            or index.shape != value.shape
            or index.ndim != 1
            or not (int(index.min()) >= 0 and int(index.max()) < own[name].numel())
        ):
            raise ZooError(f"{folder / DELTA_FILE}: the changes of {name!r} do not fit the base.")
        own[name].view(-1)[index] = value
        changed[name] = own[name]
    return changed
