"""Attention of ``adapters`` without the copies that it makes of q, k and v in every layer.

``adapters`` brings q, k and v to one batch size for ``Parallel`` blocks by ``repeat``, in every
attention and forward, also where they have one size already: three full copies and their backward
pass. :func:`without_repeats` gives an attention *instance* a subclass of its own class whose
``forward`` is the library's code, with this one function replaced by one that repeats only what is
smaller. The library itself is not changed.

In evaluation outputs and gradients stay bit-equal (fused attention, DeBERTa). With dropout in the
attention, or ``attn_implementation="eager"``, torch multiplies q, k and v where they lie, and the
last digits differ.
"""

from __future__ import annotations

import functools
import types
from typing import Any

from torch import Tensor, nn

MATCHING = "match_attn_matrices_for_parallel"
"""The library's function that repeats."""


def match_sizes(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """q, k and v (B,H,T,d) at the largest B of the three; what has it already is not copied."""
    largest = max(query.shape[0], key.shape[0], value.shape[0])
    return tuple(
        tensor
        if tensor.shape[0] == largest
        else tensor.repeat(largest // tensor.shape[0], *([1] * (tensor.ndim - 1)))
        for tensor in (query, key, value)
    )


@functools.cache
def _subclass(cls: type) -> type | None:
    """The class without repeats, None where ``cls`` makes none."""
    forward: Any = cls.__dict__.get("forward")
    if not isinstance(forward, types.FunctionType) or MATCHING not in forward.__code__.co_names:
        return None
    own = types.FunctionType(
        forward.__code__,
        {**forward.__globals__, MATCHING: match_sizes},
        forward.__name__,
        forward.__defaults__,
        forward.__closure__,
    )
    own.__kwdefaults__ = forward.__kwdefaults__
    functools.update_wrapper(own, forward)
    # Same name and module, as in `injection`; `repeats` says that it has been here.
    namespace = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "forward": own,
        "repeats": False,
    }
    return type(cls.__name__, (cls,), namespace)


def without_repeats(module: nn.Module) -> None:
    """Upgrade ``module`` if it is an attention of ``adapters`` that repeats; twice is once."""
    if getattr(module, "repeats", True):
        cls: Any = type(module)
        better = _subclass(cls)
        if better is not None:
            module.__class__ = better
