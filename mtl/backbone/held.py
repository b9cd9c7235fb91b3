"""A frozen base held in fewer bits than its adapters: ``bf16``, or ``nf4`` through bitsandbytes.

In bf16, every linear of the encoder and its word embeddings are kept in half the memory; norms,
biases and positions, which weigh nothing, stay fp32, and so does everything that trains. What is
computed is decided elsewhere: under autocast the linears multiply as they are held, and in fp32
they are read as fp32, so that the same entry answers in both precisions.

A held base has the identity of its base; how it was held is a setting of the run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl.backbone.backbones import Backbone
from mtl.backbone.injection import freeze, init
from mtl.errors import RequestError


def hold(backbone: Backbone, precision: str) -> Backbone:
    """The same base with encoders that hold its weights in ``precision``.

    Raises:
        RequestError: nf4 where it cannot be.
    """
    if precision == backbone.held_in:
        return backbone
    if isinstance(backbone, HeldBackbone):
        return hold(backbone.whole, precision)
    if precision == "nf4":
        check_nf4()
    return HeldBackbone(backbone, precision)


class HeldBackbone(Backbone):
    """``backbone`` whose encoders hold their base in ``precision``."""

    def __init__(self, backbone: Backbone, precision: str) -> None:
        self.__dict__.update(backbone.__dict__)
        self.whole = backbone
        self._rounded: Any = None
        self.held_in = precision

    @property
    def pristine(self) -> Any:
        """The encoder in fp32, with the values that the held one has.

        Raises:
            RequestError: of nf4, which no other library would read so.
        """
        if self.held_in != "bf16":
            raise RequestError(
                f"This base is held in {self.held_in}; what is written for other libraries needs "
                "it in fp32 or bf16. Train with --base-precision bf16 to export."
            )
        if self._rounded is None:
            self._rounded = copy.deepcopy(self.whole.pristine)
            with torch.no_grad():
                for module in _matrices(self._rounded):
                    module.weight.copy_(module.weight.bfloat16())
        return self._rounded

    @property
    def tokenizer(self) -> Any:
        """The fast tokenizer."""
        return self.whole.tokenizer

    def encoder(self) -> Any:
        """A fresh frozen encoder, prepared for adapters, in evaluation mode.

        Raises:
            RequestError: nf4 where it cannot be.
        """
        base = self.whole.pristine
        # Matrices are shared until they are replaced, so that none lies in memory twice.
        shared: dict[int, Any] = {id(module.weight): module.weight for module in _matrices(base)}
        encoder = copy.deepcopy(base, shared)
        if self.held_in == "nf4":
            check_nf4()
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


def check_nf4() -> None:
    """Refuse ``nf4`` where it cannot be: it needs bitsandbytes and a GPU. Raises RequestError."""
    if find_spec("bitsandbytes") is None:
        raise RequestError(
            "--base-precision nf4 holds the base through bitsandbytes, which is not installed. "
            "Install it on a machine with a GPU: pip install bitsandbytes"
        )
    if not torch.cuda.is_available():
        raise RequestError(
            "--base-precision nf4 needs a GPU, and torch finds none here. "
            "--base-precision bf16 works everywhere."
        )


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

    for name, module in list(encoder.named_modules()):
        if type(module) is not nn.Linear:
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
