"""Fingerprints of weights: which base was this adapter trained on, really?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def tensors_fingerprint(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Hex sha256 over names, shapes and values in fp32, in the order of the names.

    The same weights give the same fingerprint whether they were stored in fp16, sharded, or as a
    folder or a Hub repository.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}:{tuple(values.shape)};".encode())
        # reshape, because a view of a scalar as bytes is not allowed
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
