"""Methods that train tensors of the base itself: what they share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.methods.tuned import Tuned

if TYPE_CHECKING:
    from torch import Tensor

CHANGES_BASE = (
    "it changes weights of the base itself, and the other sources were trained without that change"
)


def read_pooler(head: str) -> bool:
    """Whether the head design ``head`` reads the base's pooler."""
    from mtl.backbone import HEADS

    return bool(head) and HEADS.get(head).use_pooler


def unfreeze(encoder: Any, names: Iterable[str]) -> dict[str, Tensor]:
    """Let the named base tensors ask for gradients; returns them by name."""
    own = dict(encoder.named_parameters())
    chosen = {name: own[name] for name in names}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen


def layer_norms(encoder: Any) -> list[str]:
    """Names of weight and bias of every LayerNorm of the base, embeddings included."""
    from torch import nn

    return [
        f"{where}.{name}"
        for where, module in encoder.named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters(recurse=False)
    ]


def tuned_base(encoder: Any, names: Iterable[str]) -> Tuned:
    """A :class:`Tuned` that trains base tensors and stores them as a delta."""
    from mtl.engine import Group
    from mtl.methods.files import save_delta

    chosen: Any = unfreeze(encoder, names)
    return Tuned([Group("method", chosen)], lambda folder, base: save_delta(folder, chosen))


def load_base(encoder: Any, settings: Any, name: str, folder: Path) -> Tuned:
    """Put the stored base tensors into ``encoder``.

    Raises:
        ZooError: missing, damaged, or of another base.
    """
    from mtl.methods.files import load_delta, save_delta

    changed = load_delta(folder, encoder)
    return Tuned([], lambda target, base: save_delta(target, changed))
