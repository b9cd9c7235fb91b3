"""A frozen base held in fewer bits than its adapters: ``bf16``, or ``nf4`` through bitsandbytes.

In bf16, every linear of the encoder and its word embeddings are kept in half the memory; norms,
biases and positions, which weigh nothing, stay fp32, and so does everything that trains. What is
computed is decided elsewhere: under autocast the linears multiply as they are held, and in fp32
they are read as fp32, so that the same entry answers in both precisions.

A held base has the identity of its base; how it was held is a setting of the run.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from mtl.backbone.backbones import Backbone
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
            from mtl.backbone.held_encoder import rounded

            self._rounded = rounded(self.whole.pristine)
        return self._rounded

    @property
    def config(self) -> Any:
        """That of the base as it was loaded: reading it rounds nothing."""
        return self.whole.config

    @property
    def tokenizer(self) -> Any:
        """The fast tokenizer."""
        return self.whole.tokenizer

    def encoder(self) -> Any:
        """A fresh frozen encoder, prepared for adapters, in evaluation mode.

        Raises:
            RequestError: nf4 where it cannot be.
        """
        from mtl.backbone.held_encoder import held_encoder

        if self.held_in == "nf4":
            check_nf4()
        return held_encoder(self.whole.pristine, self.held_in)


def check_nf4() -> None:
    """Refuse ``nf4`` where it cannot be: it needs bitsandbytes and a GPU. Raises RequestError."""
    if find_spec("bitsandbytes") is None:
        raise RequestError(
            "--base-precision nf4 holds the base through bitsandbytes, which is not installed. "
            "Install it on a machine with a GPU: pip install bitsandbytes"
        )
    import torch

    if not torch.cuda.is_available():
        raise RequestError(
            "--base-precision nf4 needs a GPU, and torch finds none here. "
            "--base-precision bf16 works everywhere."
        )
