"""What a model type is to us: one table, a :class:`~mtl.backbone.arch_row.Arch` per type.

Everything that depends on how the layers of a type are built asks this table: which types there
are (:mod:`~mtl.backbone.backbones`), linear modules (:mod:`~mtl.backbone.linear`), heads and what
they read (:mod:`~mtl.backbone.heads`), positions and token types
(:mod:`~mtl.backbone.encoder_fit`), tiny models for trying (:func:`tiny_config`), and which methods
work on it. Nothing here imports torch, so lists answer at once.

To add a type: CONTRIBUTING.md, "Add a base".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any

from mtl.backbone import decoders, encoders
from mtl.backbone.arch_row import Arch, Place
from mtl.errors import RequestError

__all__ = [
    "LEFT_OUT", "Arch", "Place", "arch_of", "archs", "check_method", "find_arch", "supported",
]  # fmt: skip

LEFT_OUT: Mapping[str, str] = MappingProxyType({**encoders.LEFT_OUT, **decoders.LEFT_OUT})
"""Types that one could ask for, and why they are no entry."""


@cache
def archs() -> Mapping[str, Arch]:
    """The table: ``model_type`` → :class:`Arch`."""
    return {arch.type: arch for arch in (*encoders.ENCODERS, *decoders.DECODERS)}


def find_arch(kind: str) -> Arch | None:
    """The entry of a model type; None where we do not know how its layers are built."""
    return archs().get(kind)


def arch_of(config: Any) -> Arch:
    """The entry of a model with ``config``, which was found to be supported.

    Its linears are where such a model has them: a gated FFN has them elsewhere.

    Raises:
        RequestError: it is not.
    """
    arch = supported(config.model_type, f"of type {config.model_type!r}")
    if arch.gated and config.is_gated_act:
        return replace(arch, linears={**arch.linears, **arch.gated})
    return arch


def supported(kind: str, model: str) -> Arch:
    """The entry of type ``kind``.

    Args:
        model: what to call the model in the message.

    Raises:
        RequestError: there is none: names the types that there are, or why this one is left out.
    """
    arch = find_arch(kind)
    if arch is not None:
        return arch
    reason = LEFT_OUT.get(kind)
    why = f": {reason}" if reason else ""
    raise RequestError(
        f"Model {model} is of type {kind!r}, on which mtl composes no adapters{why}. It does on "
        f"{', '.join(archs())}. Try roberta-base, or 'demo'."
    )


def check_method(kind: str, method: str) -> None:
    """Refuse a method or composition that cannot be right on bases of type ``kind``.

    Raises:
        RequestError: says why, and which command lists what can.
    """
    why = supported(kind, f"of type {kind!r}").refuses.get(method)
    if why:
        raise RequestError(
            f"{method} cannot be used on a base of type {kind!r}: {why}. What can: "
            f"python -m mtl.methods ls --model {kind}"
        )


TINY: Mapping[str, int] = MappingProxyType(
    {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
    }
)


def tiny_config(kind: str, *, vocab_size: int, pad_token_id: int, **shape: Any) -> Any:
    """A ``transformers`` config of a small model of type ``kind``.

    Args:
        shape: sizes by BERT's names, in place of those of :data:`TINY`, and anything else by the
            type's own names.
    """
    from transformers import AutoConfig

    arch = supported(kind, f"of type {kind!r}")
    values = {**arch.named(TINY), **arch.tiny, **arch.named(shape)}
    return AutoConfig.for_model(kind, **values, vocab_size=vocab_size, pad_token_id=pad_token_id)
