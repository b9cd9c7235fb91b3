"""What a frozen encoder makes of texts: vectors of the last layer, and a cache of such passes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtl.backbone.arch import arch_of
from mtl.backbone.network import INPUTS, mean_of, pooled
from mtl.data import eval_order
from mtl.engine.feed import to_device
from mtl.engine.passes import usual_passes
from mtl.errors import RunError, ZooError
from mtl.files import read_safetensors, sha256_json, write_safetensors

if TYPE_CHECKING:
    from mtl.data import Encoded
    from mtl.engine.device import Device

_LOG = logging.getLogger("mtl.graph")
Arrays = dict[str, Any]


def inputs_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Of a batch what the encoder reads."""
    return {name: batch[name] for name in INPUTS if name in batch}


@torch.no_grad()
def token_vectors(
    encoder: Any, encoded: Encoded, device: Device, rows: np.ndarray | None = None
) -> Arrays:
    """``first`` and ``mean``: the vector that heads read and the mean over the real tokens.

    Args:
        device: where, and in which precision, the encoder computes; the vectors are fp32.
        rows: which rows, in the order of the result; None for all.

    Returns:
        (n·choices, D) each.
    """
    chosen = np.arange(len(encoded)) if rows is None else rows
    encoder = encoder.to(device.torch_device).eval()
    width, pooling = int(encoder.config.hidden_size), arch_of(encoder.config).pooling
    first = np.zeros((len(encoded), encoded.choices, width), np.float32)
    mean = np.zeros_like(first)
    for batch_rows in eval_order(encoded, usual_passes(device.torch_device), chosen):
        batch = to_device(encoded.collate(batch_rows), device.torch_device)
        with device.autocast():
            states = encoder(**inputs_of(batch)).last_hidden_state
        states = states.float()
        shape = first[batch_rows].shape
        own = pooled(states, batch["attention_mask"], pooling)
        first[batch_rows] = own.cpu().numpy().reshape(shape)
        mean[batch_rows] = mean_of(states, batch["attention_mask"]).cpu().numpy().reshape(shape)
    return {
        "first": first[chosen].reshape(-1, width),
        "mean": mean[chosen].reshape(-1, width),
    }


def kept(folder: Path, key: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """The arrays of a pass from ``folder``, or made and put there.

    Args:
        key: everything that decides their content, as JSON.
    """
    mark = sha256_json(key)
    path = folder / mark[:2] / f"{mark}.safetensors"
    if path.is_file():
        try:
            stored, _ = read_safetensors(path)
            return {name: value.numpy() for name, value in stored.items()}
        except ZooError as error:  # a damaged cache costs only time
            _LOG.warning("%s; it is made again", error)
    found = make()
    try:
        tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in found.items()}
        write_safetensors(path, tensors)
    except RunError as error:
        _LOG.warning("features are not cached: %s", error)
    return found
