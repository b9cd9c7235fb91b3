r"""The linear modules of an encoder's layers, and what is added to their outputs.

=============  =======================================  ==================
module         what it is                               shape (out, in)
=============  =======================================  ==================
q, k, v        query, key and value of self-attention   (D, D)
attention      the attention's output projection        (D, D)
intermediate   the FFN's first linear                   (D_ffn, D)
output         the FFN's second linear                  (D, D_ffn)
=============  =======================================  ==================

Where they are in a layer of a type says its row of :mod:`mtl.backbone.arch`; a type may have none
of a name. q, k and v of a fused projection are :class:`Part`\ s of it.

A delta is added by a forward hook, so the base's parameters keep their names and the linear stays
whatever ``adapters`` made of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.backbone.arch import Place, arch_of
from mtl.errors import RequestError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

LINEARS = ("q", "k", "v", "attention", "intermediate", "output")
"""Names of the linear modules of a layer, in the order of their sites."""


@dataclass(frozen=True)
class Part:
    """Some outputs of a linear module, as if they were one of their own.

    Attributes:
        whole: the module; a ``Linear``, or GPT-2's ``Conv1D``, whose weight is transposed.
        part, parts: which of how many equal parts of its outputs.
    """

    whole: nn.Module
    part: int
    parts: int

    @property
    def in_features(self) -> int:
        return _width(self.whole, inputs=True)

    @property
    def out_features(self) -> int:
        return _width(self.whole, inputs=False) // self.parts

    @property
    def start(self) -> int:
        """The first of its outputs among those of the whole."""
        return self.part * self.out_features


def _width(module: Any, *, inputs: bool) -> int:
    if hasattr(module, "in_features"):
        return int(module.in_features if inputs else module.out_features)
    return int(module.weight.shape[0 if inputs else 1])  # Conv1D: (in, out)


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


def linear_sites(encoder: Any, modules: Sequence[str]) -> dict[str, nn.Linear | Part]:
    """The linears called ``modules`` of all layers by site, ``"3.q"``, bottom up.

    Raises:
        RequestError: the type has no such module, or the encoder's layers are built otherwise.
    """
    from torch import nn

    places = _places(encoder, modules)
    found: dict[str, nn.Linear | Part] = {}
    for index, layer in encoder.iter_layers():
        own = dict(layer.named_modules())
        for module, place in places.items():
            linear = own.get(place.path)
            if linear is None or not (isinstance(linear, nn.Linear) or hasattr(linear, "nf")):
                raise RequestError(
                    f"Cannot find the linear module {module!r} in layer {index} of an encoder of "
                    f"type {encoder.config.model_type!r}: there is none of {place.path}."
                )
            whole = place.parts == 1 and isinstance(linear, nn.Linear)
            found[f"{index}.{module}"] = linear if whole else Part(linear, place.part, place.parts)
    return found


def _places(encoder: Any, modules: Sequence[str]) -> dict[str, Place]:
    arch = arch_of(encoder.config)
    places = {module: arch.place(module) for module in modules}
    missing = [module for module, place in places.items() if place is None]
    if missing:
        raise RequestError(
            f"An encoder of type {arch.type!r} has no linear module {', '.join(missing)}; it has "
            f"--set modules={','.join(arch.linears)}."
        )
    return {module: place for module, place in places.items() if place is not None}


def whole_of(linear: nn.Module | Part) -> nn.Module:
    """The module itself that a site is, or is a part of."""
    return linear.whole if isinstance(linear, Part) else linear


def linear_paths(encoder: Any, modules: Sequence[str]) -> dict[str, str]:
    """Site → the linear's name inside the encoder, ``encoder.layer.3.attention.self.query``.

    Parts of one fused linear have its name.
    """
    names = {id(module): name for name, module in encoder.named_modules()}
    sites = linear_sites(encoder, modules)
    return {site: names[id(whole_of(linear))] for site, linear in sites.items()}


def whole_paths(encoder: Any, modules: Sequence[str], method: str) -> dict[str, str]:
    """As :func:`linear_paths`, for methods that change whole modules: each of them once.

    The site of a fused one is named after all its parts, ``"3.qkv"``.

    Raises:
        RequestError: some parts of a fused linear are named, and others are not.
    """
    found: dict[str, str] = {}
    for path, sites in _by_path(encoder, modules).items():
        layer = sites[0].partition(".")[0]
        names = [site.partition(".")[2] for site in sites]
        parts = arch_of(encoder.config).place(names[0])
        if parts is not None and len(names) != parts.parts:
            fused = [
                name
                for name in LINEARS
                if (other := arch_of(encoder.config).place(name)) and other.path == parts.path
            ]
            raise RequestError(
                f"{method} changes whole linear modules, and {', '.join(fused)} are one in an "
                f"encoder of type {encoder.config.model_type!r}. Name all of them or none: --set "
                f"modules={','.join(name for name in LINEARS if name in (*modules, *fused))}"
            )
        found[f"{layer}.{''.join(names)}"] = path
    return found


def _by_path(encoder: Any, modules: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for site, path in linear_paths(encoder, modules).items():
        found.setdefault(path, []).append(site)
    return found


def split_wholes(
    encoder: Any, modules: Sequence[str], wholes: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Factors of whole modules by the sites of :func:`whole_paths` → by those of linears.

    Args:
        wholes: down (R,in) and up (out,R) of each; parts have the same down.
    """
    places = _places(encoder, modules)
    found = {}
    for site, (down, up) in wholes.items():
        layer, _, names = site.partition(".")
        if names in places:
            found[site] = (down, up)
            continue
        for name in names:
            rows = up.shape[0] // len(names)
            start = places[name].part * rows
            found[f"{layer}.{name}"] = (down, up[start : start + rows])
    return found


def path_pattern(paths: Sequence[str]) -> str:
    """A regular expression that matches the linears ``paths`` in an encoder or a model around it.

    Layer numbers are generalised, so ``paths`` are those of all layers.
    """
    tails = {re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(path), count=1) for path in paths}
    return r"(?:.*\.)?(?:" + "|".join(sorted(tails)) + ")"


def add_delta(linear: nn.Module | Part, delta: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """Let ``linear`` answer ``linear(x) + delta(x)``, x (B,T,in), until the handle is removed."""
    if not isinstance(linear, Part):
        return linear.register_forward_hook(lambda _, args, output: output + delta(args[0]))
    start, stop = linear.start, linear.start + linear.out_features

    def hook(_: Any, args: Any, output: Tensor) -> Tensor:
        from torch.nn import functional

        around = (start, output.shape[-1] - stop)
        return output + functional.pad(delta(args[0]), around)

    return linear.whole.register_forward_hook(hook)


def lora_views(linear: nn.Module | Part, name: str) -> tuple[Tensor, Tensor, float]:
    """Down (R,in), up (out,R) and scale of the LoRA ``name`` that ``adapters`` keeps at a site.

    Views of its parameters: of a fused module it stacks those of the parts that it changes.
    """
    lora: Any = whole_of(linear).loras[name]  # type: ignore[index,union-attr]
    if not hasattr(lora, "enable_lora"):
        return lora.lora_A, lora.lora_B, lora.scaling
    assert isinstance(linear, Part)
    place = sum(lora.enable_lora[: linear.part])
    rank, rows = lora.r, linear.out_features
    return (
        lora.lora_A[place * rank : (place + 1) * rank],
        lora.lora_B[place * rows : (place + 1) * rows],
        lora.scaling,
    )
