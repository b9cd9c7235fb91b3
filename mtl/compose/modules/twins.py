"""The torch side of :mod:`mtl.compose.control`: sources of the same sizes that know nothing."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtl.backbone.injection import bottleneck_layers
from mtl.errors import RequestError
from mtl.methods.low_rank import Factors
from mtl.methods.modules.low_rank import low_rank_sources
from mtl.methods.source import PlainSource, as_source, plain_source

OUTPUT = ("up", "up_weight", "up_bias")
"""Tensors whose first dimension is the output."""
INPUT = ("down", "both")
"""Tensors whose last dimension is the input."""


@torch.no_grad()
def replace_by_twin(encoder: Any, name: str, how: str, key: str) -> None:
    """Replace the source ``name`` in ``encoder`` by a twin, for whoever asks for it as a source.

    Args:
        how: one of :data:`mtl.compose.control.CONTROLS`.
        key: what the twin is drawn by, beside site and tensor.

    Raises:
        RequestError: the source's features are computed by modules of its own, or it has no site.
    """
    low_rank = low_rank_sources(encoder).get(name)
    if low_rank is not None:
        for site, factors in low_rank.items():
            low_rank[site] = twin_of(factors, how, f"{key} {site}")
        return
    found = 0
    for index, location, layer in bottleneck_layers(encoder):
        if name not in layer.adapters:
            continue
        adapter = layer.adapters[name]
        source = as_source(adapter, layer.adapters_config.get(name))
        source = plain_source(source) or source
        adapter.twin = twin_of(source, how, f"{key} {index}.{location}")
        found += 1
    if not found:
        raise RequestError("it has no site at which a composition reads it.")


def twin_of(source: Any, how: str, key: str) -> Any:
    """The twin of a source at one site: an object of its class with other tensors.

    Args:
        source: a :class:`~mtl.methods.source.PlainSource`, the
            :class:`~mtl.methods.low_rank.Factors` of a delta, or another source that is a dataclass
            of tensors.
        how, key: see :func:`replace_by_twin`.

    Raises:
        RequestError: it is none of these.
    """
    if not is_dataclass(source) or isinstance(source, type):
        raise RequestError(
            "its features are computed by modules of its own, whose tensors have no order that a "
            "twin could keep. Controls take sources that are bottlenecks or low-rank deltas."
        )
    tensors = {
        item.name: value
        for item in fields(source)
        if isinstance(value := getattr(source, item.name), Tensor) and value.numel()
    }
    draws = {field: partial(_generator, f"{key} {field}") for field in tensors}
    if how == "permuted":
        made = {name: _permuted(value, draws[name]()) for name, value in tensors.items()}
    elif how == "gaussian":
        made = {name: _gaussian(value, draws[name]()) for name, value in tensors.items()}
    else:
        made = _rotated(tensors, key)
    return replace(source, **made)


def _generator(key: str) -> np.random.RandomState:
    """Numbers that depend on ``key`` alone: numpy promises that this generator stays as it is."""
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, "<u4"))


def _permuted(value: Tensor, draw: np.random.RandomState) -> Tensor:
    order = torch.from_numpy(draw.permutation(value.numel())).to(value.device)
    return value.flatten()[order].view_as(value)


def _gaussian(value: Tensor, draw: np.random.RandomState) -> Tensor:
    """Standardised, so that mean and deviation are those of ``value`` and not nearly so."""
    drawn = torch.from_numpy(draw.standard_normal(tuple(value.shape)))
    wanted = value.double()
    deviation = drawn.std(correction=0)
    if deviation > 0:
        drawn = (drawn - drawn.mean()) / deviation
    else:
        drawn = torch.zeros_like(drawn)
    scaled = drawn.to(value.device) * wanted.std(correction=0) + wanted.mean()
    return scaled.to(value.dtype)


def _rotated(tensors: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    made = {}
    turns: dict[tuple[str, int], Tensor] = {}

    def turn(side: str, size: int, like: Tensor) -> Tensor:
        if (side, size) not in turns:
            turns[side, size] = _rotation(size, _generator(f"{key} {side}"))
        return turns[side, size].to(like.device)

    for name, value in tensors.items():
        if name in INPUT:
            whole = value.double() @ turn("input", value.shape[-1], value).t()
        elif name in OUTPUT:
            whole = turn("output", value.shape[0], value) @ value.double()
        else:
            continue
        made[name] = whole.to(value.dtype)
    return made


def _rotation(size: int, draw: np.random.RandomState) -> Tensor:
    """A uniformly random orthogonal (size,size) matrix, in fp64."""
    q, r = np.linalg.qr(draw.standard_normal((size, size)))
    return torch.from_numpy(q * np.sign(np.diag(r)))


assert {item.name for item in fields(Factors)} <= {*INPUT, *OUTPUT}
assert {"down", "up_weight", "up_bias"} <= {item.name for item in fields(PlainSource)}
