"""A base whose encoders share its tensors: for networks that leave the base as it is."""

from __future__ import annotations

import copy
from typing import Any

from mtl.backbone.backbones import Backbone
from mtl.backbone.injection import freeze, init


class SharedBase(Backbone):
    """``backbone`` with :meth:`encoder` giving new modules over the same frozen tensors."""

    def __init__(self, backbone: Backbone) -> None:
        self.__dict__.update(backbone.__dict__)
        self._whole = backbone

    @property
    def pristine(self) -> Any:
        """The encoder whose tensors all share."""
        return self._whole.pristine

    @property
    def tokenizer(self) -> Any:
        """The fast tokenizer."""
        return self._whole.tokenizer

    def encoder(self) -> Any:
        """An encoder prepared for adapters, in evaluation mode; its base is nobody's to change."""
        base = self.pristine
        held = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
        encoder = init(copy.deepcopy(base, held))
        freeze(encoder)
        return encoder.eval()
