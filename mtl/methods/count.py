"""Exact parameter counts, taken from the real modules on the meta device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mtl.backbone import build_head, skeleton
from mtl.methods.base import METHODS, attach, make_settings

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Count:
    """Trainable parameters by part.

    Attributes:
        method: the method's own.
        layer_norm: of unfrozen LayerNorms of the base.
        head: of the head, 0 where none was asked for.
    """

    method: int
    layer_norm: int
    head: int

    @property
    def total(self) -> int:
        return self.method + self.layer_norm + self.head

    def to_dict(self) -> dict[str, int]:
        return {**asdict(self), "total": self.total}


def numel(parameters: Iterable[nn.Parameter]) -> int:
    """Number of scalars."""
    return sum(parameter.numel() for parameter in parameters)


def count_head(head: str | None, config: Any, labels: int) -> int:
    """Parameters of a head with ``labels`` outputs; 0 for None."""
    import torch

    if head is None:
        return 0
    with torch.device("meta"):
        return numel(build_head(head, config, labels, pooler=True).parameters())


def count_method(
    name: str, model: str, *, values: dict[str, Any], head: str | None = None, labels: int = 2
) -> Count:
    """Count a stage-one method on ``model``; nothing is downloaded, nothing allocated.

    Raises:
        RequestError: unknown method, setting or model shape.
    """
    import torch

    method = METHODS.get(name)
    settings = make_settings(name, method.settings, values)
    encoder = skeleton(model)
    with torch.device("meta"):
        parameters = attach(encoder, method, settings, "counted")
    return Count(numel(parameters.values()), 0, count_head(head, encoder.config, labels))
