"""Tiny random models of the types in the table, for the tests of this room."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch

from mtl.backbone.arch import archs, tiny_config
from mtl.backbone.building import build, config_to_load
from mtl.backbone.injection import freeze, init


@cache
def pristine(kind: str) -> Any:
    """A tiny random model of ``kind`` whose biases and norms are not trivial; do not change it."""
    arch = archs()[kind]
    config = config_to_load(tiny_config(kind, vocab_size=60, pad_token_id=1), arch)
    torch.manual_seed(7)
    model = build(config, arch).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def ready(kind: str) -> Any:
    """A frozen copy of it, prepared for adapters."""
    encoder = init(copy.deepcopy(pristine(kind)))
    freeze(encoder)
    return encoder.eval()
