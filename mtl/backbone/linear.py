"""The linear modules of an encoder's layers, and what is added to their outputs.

=============  =======================================  ==================
module         what it is                               shape (out, in)
=============  =======================================  ==================
q, k, v        query, key and value of self-attention   (D, D)
attention      the attention's output projection        (D, D)
intermediate   the FFN's first linear                   (D_ffn, D)
output         the FFN's second linear                  (D, D_ffn)
=============  =======================================  ==================

A delta is added by a forward hook, so the base's parameters keep their names and the linear stays
whatever ``adapters`` made of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

_PATHS = {
    # DeBERTa's names come second.
    "q": ("attention.self.query", "attention.self.query_proj"),
    "k": ("attention.self.key", "attention.self.key_proj"),
    "v": ("attention.self.value", "attention.self.value_proj"),
    "attention": ("attention.output.dense",),
    "intermediate": ("intermediate.dense",),
    "output": ("output.dense",),
}
LINEARS = tuple(_PATHS)
"""Names of the linear modules of a layer, in the order of their sites."""


def module_names(text: str, known: Sequence[str] = LINEARS) -> tuple[str, ...]:
    """``"v, q"`` → ``("q", "v")``: names of linear modules in one order; ``all`` is all ``known``.

    Raises:
        RequestError: none, an unknown one, or one named twice.
    """
    if text.strip() == "all":
        return tuple(known)
    named = [part.strip() for part in text.split(",") if part.strip()]
    if not named:
        raise RequestError(f"modules={text!r} names no module; write for example modules=q,v.")
    for name in named:
        if name not in known:
            raise unknown("module", name, known, "Write for example modules=q,v, or modules=all.")
    if len(set(named)) != len(named):
        raise RequestError(f"modules={text!r} names a module twice.")
    return tuple(name for name in LINEARS if name in named)


def linear_sites(encoder: Any, modules: Sequence[str]) -> dict[str, nn.Linear]:
    """The linears called ``modules`` of all layers by site, ``"3.q"``, bottom up.

    Raises:
        RequestError: the encoder's layers are built otherwise.
    """
    from torch import nn

    found: dict[str, nn.Linear] = {}
    for index, layer in encoder.iter_layers():
        own = dict(layer.named_modules())
        for module in modules:
            linear = next((own[path] for path in _PATHS[module] if path in own), None)
            if not isinstance(linear, nn.Linear):
                raise RequestError(
                    f"Cannot find the linear module {module!r} in layer {index} of an encoder of "
                    f"type {encoder.config.model_type!r}: there is none of "
                    f"{', '.join(_PATHS[module])}."
                )
            found[f"{index}.{module}"] = linear
    return found


def linear_paths(encoder: Any, modules: Sequence[str]) -> dict[str, str]:
    """Site → the linear's name inside the encoder, ``encoder.layer.3.attention.self.query``."""
    names = {id(module): name for name, module in encoder.named_modules()}
    return {site: names[id(linear)] for site, linear in linear_sites(encoder, modules).items()}


def path_pattern(paths: Sequence[str]) -> str:
    """A regular expression that matches the linears ``paths`` in an encoder or a model around it.

    Layer numbers are generalised, so ``paths`` are those of all layers.
    """
    tails = {re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(path), count=1) for path in paths}
    return r"(?:.*\.)?(?:" + "|".join(sorted(tails)) + ")"


def add_delta(linear: nn.Module, delta: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """Let ``linear`` answer ``linear(x) + delta(x)``, x (B,T,in), until the handle is removed."""
    return linear.register_forward_hook(lambda _, args, output: output + delta(args[0]))
