"""Binary masks from scores, trained through: the top share of |score| is kept."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


def keep_mask(scores: Tensor, keep: float) -> Tensor:
    """0/1 mask of the shape of ``scores``, straight-through.

    ``int((1 − keep)·n)`` entries of smallest |score| are 0, in Python floats as in the reference.
    The gradient of the mask is taken for that of |score|.
    """
    return keep_masks(scores[None], keep)[0]


def keep_masks(scores: Tensor, keep: float) -> Tensor:
    """M masks at once: each of the M tensors in ``scores`` (M,…) as :func:`keep_mask` does it."""
    size = scores.abs()
    flat = size.detach().reshape(len(size), -1)
    kept = flat.shape[1] - int((1 - keep) * flat.shape[1])
    index = flat.topk(kept, dim=1, sorted=False).indices  # a quarter of sorted's time
    hard = torch.zeros_like(flat).scatter_(1, index, 1.0).view_as(size)
    return hard + (size - size.detach())


def new_scores(*shape: int) -> nn.Parameter:
    """Scores drawn Kaiming-uniform with a = √5: uniform in ±1/√(last dimension)."""
    bound = 1 / math.sqrt(shape[-1])
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


def pack(mask: Tensor) -> Tensor:
    """A 0/1 mask as bits, eight to a byte (uint8)."""
    bits = np.packbits(mask.detach().cpu().numpy().astype(bool).reshape(-1))
    return torch.from_numpy(bits)


def unpack(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What :func:`pack` packed, as float 0/1 of ``shape``.

    Raises:
        ValueError: another number of bits than the shape has entries.
    """
    count = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.numel() != -(-count // 8):
        raise ValueError(f"{bits.numel()} bytes are no mask of shape {shape}")
    values = np.unpackbits(bits.numpy(), count=count)
    return torch.from_numpy(values.astype(np.float32)).view(shape)
