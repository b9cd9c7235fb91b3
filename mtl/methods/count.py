"""Exact parameter counts, taken from the real modules on the meta device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.backbone import build_head, skeleton
from mtl.methods.method import Method, RunFacts, attach, find_method, make_settings

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Count:
    """Parameters by part.

    Attributes:
        method: the method's own trainable scalars; of masked methods the floats that are stored.
        layer_norm: of unfrozen LayerNorms of the base.
        head: of the head, 0 where none was asked for.
        merged: what the method adds at inference (experts merged); ``method`` where that is all.
        mask_entries: bits stored beside the floats.
        all_parameters: of base, method and head together.
    """

    method: int
    layer_norm: int
    head: int
    merged: int
    mask_entries: int
    all_parameters: int

    @property
    def total(self) -> int:
        return self.method + self.layer_norm + self.head

    @property
    def percent(self) -> float:
        """``total`` in percent of all parameters."""
        return 100 * self.total / self.all_parameters

    def to_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "layer_norm": self.layer_norm,
            "head": self.head,
            "total": self.total,
            "merged": self.merged,
            "mask_entries": self.mask_entries,
            "percent": self.percent,
        }


def numel(parameters: Iterable[nn.Parameter]) -> int:
    """Number of scalars."""
    return sum(parameter.numel() for parameter in parameters)


def count_head(head: str | None, config: Any, labels: int) -> int:
    """Parameters of a head with ``labels`` outputs; 0 for None."""
    import torch

    if head is None:
        return 0
    with torch.device("meta"):
        return numel(build_head(head, config, labels, pooler=True).trained().values())


def count_method(
    name: str, model: str, *, values: dict[str, Any], head: str | None = None, labels: int = 2
) -> Count:
    """Count a stage-one method on ``model``; nothing is downloaded, nothing allocated.

    Raises:
        RequestError: unknown method, setting or model shape.
    """
    method = find_method(name)
    settings = make_settings(name, method.settings, {**method.defaults, **values})
    return count_settings(method, settings, model, head=head, labels=labels)


def count_settings(
    method: Method, settings: Any, model: str, *, head: str | None = None, labels: int = 2
) -> Count:
    """As :func:`count_method`, for settings that are made."""
    import torch

    encoder = skeleton(model)
    base = numel(encoder.parameters())
    with torch.device("meta"):
        tuned = attach(encoder, method, settings, "counted", RunFacts(head=head or ""))
    sizes = {group.name: numel(group.parameters.values()) for group in tuned.groups}
    own = sum(size for part, size in sizes.items() if part not in {"layer_norm", "masks", "gates"})
    of_head = count_head(head, encoder.config, labels)
    return Count(
        method=own,
        layer_norm=sizes.get("layer_norm", 0),
        head=of_head,
        merged=own if tuned.merged is None else tuned.merged,
        mask_entries=tuned.mask_entries,
        all_parameters=base + (own if method.adds else 0) + of_head,
    )
