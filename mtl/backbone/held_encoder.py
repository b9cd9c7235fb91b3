"""Encoders whose frozen weights are held in fewer bits (:mod:`mtl.backbone.held`)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl.backbone.injection import freeze, init


def rounded(base: Any) -> Any:
    """A copy of ``base`` in fp32 whose matrices have values of bf16."""
    found = copy.deepcopy(base)
    with torch.no_grad():
        for module in _matrices(found):
            module.weight.copy_(module.weight.bfloat16())
    return found


def held_encoder(base: Any, precision: str) -> Any:
    """A frozen copy of ``base``, prepared for adapters, whose matrices are held in ``precision``.

    Args:
        precision: ``bf16``, or ``nf4`` (its embeddings are then held in bf16).
    """
    # Matrices are shared until they are replaced, so that none lies in memory twice.
    shared: dict[int, Any] = {id(module.weight): module.weight for module in _matrices(base)}
    encoder = copy.deepcopy(base, shared)
    if precision == "nf4":
        _four_bits(encoder)
    init(encoder)
    for module in _matrices(encoder):
        if module.weight.dtype == torch.float32:
            module.weight = nn.Parameter(module.weight.bfloat16(), requires_grad=False)
            module.__class__ = _held(type(module))
    # What computes its masks in "the model's dtype" does so in that of its states.
    encoder.__class__ = _held(type(encoder))
    freeze(encoder)
    return encoder.eval()


def _matrices(encoder: Any) -> list[Any]:
    """Its linears (GPT-2's too) and its word embeddings."""
    words = encoder.get_input_embeddings()
    return [
        module
        for module in encoder.modules()
        if module is words or isinstance(module, nn.Linear) or hasattr(module, "nf")
    ]


def _four_bits(encoder: Any) -> None:
    """Put linears of bitsandbytes into the layers; their weights are made when they go to a GPU."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    # T5 casts what goes into such a module to the type of its weight, which of four bits is none.
    whole = set(encoder._keep_in_fp32_modules or ())
    for name, module in list(encoder.named_modules()):
        if type(module) is not nn.Linear or name.rpartition(".")[2] in whole:
            continue
        bias = module.bias is not None
        made = Linear4bit(
            module.in_features,
            module.out_features,
            bias=bias,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
            device="meta",
        )
        weight = module.weight.detach().bfloat16()
        made.weight = Params4bit(weight, requires_grad=False, quant_type="nf4")
        made.bias = module.bias
        owner, _, last = name.rpartition(".")
        setattr(encoder.get_submodule(owner), last, made)


def _read(module: Any) -> Tensor:
    weight: Tensor = module._parameters["weight"]
    return weight if torch.is_autocast_enabled(weight.device.type) else weight.float()


def _look_up(module: Any, ids: Tensor) -> Tensor:
    """Only the rows that are read become fp32, and then what scales them does so in fp32."""
    weight: Tensor = module._parameters["weight"]
    found = functional.embedding(ids, weight, module.padding_idx).float()
    scale = getattr(module, "embed_scale", None)
    return found if scale is None else found * scale


_HELD: dict[type, type] = {}


def _held(cls: type) -> type:
    """``cls`` whose weight reads as fp32 where nothing casts; of an encoder, its ``dtype``."""
    if cls not in _HELD:
        seam: dict[str, Callable[..., Any] | property] = {"weight": property(_read)}
        if issubclass(cls, nn.Embedding):
            seam = {"forward": _look_up}
        elif hasattr(cls, "get_input_embeddings"):
            seam = {"dtype": property(lambda encoder: torch.float32)}
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, **seam}
        _HELD[cls] = type(cls.__name__, (cls,), names)
    return _HELD[cls]
