"""The same numbers with fewer calls: attention while training on a CPU, one LoRA at a linear.

Both are seams of :func:`mtl.backbone.injection.init` and compute, bit for bit, what ``adapters``
and torch do there, sums in their order:

* torch's attention with dropout looks whether a row is masked as a whole, which costs three passes
  over (B,H,T,T). Where the mask is finite none is, and that is looked up once per mask.
* the LoRA of ``adapters`` multiplies by 1 what it adds, and keeps a graph node for each of seven
  calls. :class:`_Added` is one.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import torch
import torch.nn.functional as functional
from adapters.composition import Stack
from adapters.methods.lora import LoRA, LoRALinearTorch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# ------------------------------------------------------------------ attention

MATCH = "match_attn_matrices_for_parallel"
"""What the attentions of ``adapters`` call on query, key and value: it copies each of them."""


def attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float | None,
    drop: Callable[[Tensor], Tensor],
) -> Tensor:
    """``drop(softmax(q kᵀ · scale + mask)) v`` of (B,H,T,d), in the very products of torch.

    Args:
        mask: is added, or says what is kept where it is of bools.
        scale: 1/√d where it is None; its root goes on both sides.
    """
    root = math.sqrt(1.0 / math.sqrt(query.shape[-1]) if scale is None else scale)
    scores = (query * root) @ (key.transpose(-2, -1) * root)
    if mask is not None:
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -math.inf)
        else:  # in bf16 the smallest number of fp32 is infinite
            scores = scores.add_(mask) if mask.dtype == scores.dtype else scores + mask
    return drop(scores.softmax(-1)) @ value


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **more: Any,
) -> Tensor:
    """``scaled_dot_product_attention``, without its looks for rows that are masked as a whole.

    Inside :func:`dropping` the mask of its dropout is drawn there.
    """
    drop = _drop.get()
    if drop is not None and dropout_p > 0 and not (is_causal or more):
        return attended(query, key, value, attn_mask, None, lambda w: drop(w, dropout_p))
    plainly = (
        dropout_p > 0
        and query.device.type == "cpu"
        and query.dtype in (torch.float32, torch.float64)
        and not (is_causal or more or torch.is_autocast_enabled("cpu"))
        and not torch.compiler.is_compiling()
        and (attn_mask is None or _finite(attn_mask))
    )
    if not plainly:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, **more
        )
    return attended(
        query, key, value, attn_mask, None, lambda weights: functional.dropout(weights, dropout_p)
    )


_drop: ContextVar[Callable[[Tensor, float], Tensor] | None] = ContextVar("drop", default=None)


@contextmanager
def dropping(drop: Callable[[Tensor, float], Tensor]) -> Iterator[None]:
    """Let attentions drop weights (M,H,T,T) with probability p by ``drop(weights, p)``."""
    token = _drop.set(drop)
    try:
        yield
    finally:
        _drop.reset(token)


_last: tuple[weakref.ref[Tensor], bool] | None = None


def _finite(mask: Tensor) -> bool:
    """Whether ``mask`` is of numbers, all finite; looked at once for all layers, which share it."""
    global _last
    last = _last  # another thread may put its own there
    if last is None or last[0]() is not mask:
        finite = mask.is_floating_point() and bool(mask.amin() > -math.inf)
        _last = last = weakref.ref(mask), finite
    return last[1]


def _laid_out(*matrices: Tensor) -> tuple[Tensor, ...]:
    """What :data:`MATCH` does to query, key and value: as many rows each, laid out row by row."""
    most = max(matrix.shape[0] for matrix in matrices)
    return tuple(
        matrix.contiguous()
        if matrix.shape[0] == most
        else matrix.repeat(most // matrix.shape[0], 1, 1, 1)
        for matrix in matrices
    )


def _uncopied(*matrices: Tensor) -> tuple[Tensor, ...]:
    """The same without a copy, for attentions whose sums depend on how matrices are laid out.

    ``transformers`` multiplies them as they are, and so does a base without adapters.
    """
    most = max(matrix.shape[0] for matrix in matrices)
    return tuple(
        matrix if matrix.shape[0] == most else matrix.repeat(most // matrix.shape[0], 1, 1, 1)
        for matrix in matrices
    )


def _module(of: ModuleType, **own: Any) -> ModuleType:
    found = ModuleType(of.__name__)
    found.__dict__.update({**vars(of), **own})
    return found


@cache
def _attending(cls: type, eager: bool) -> type:
    """An attention class of ``adapters`` with the same forward, which calls what stands above."""
    forward: Any = cls.forward  # type: ignore[attr-defined]
    ours = _module(functional, scaled_dot_product_attention=_attention)
    called: dict[str, Any] = {MATCH: _uncopied if eager else _laid_out}
    if not eager:
        called["torch"] = _module(torch, nn=_module(nn, functional=ours))
    own = FunctionType(
        forward.__code__,
        {**forward.__globals__, **called},
        forward.__name__,
        forward.__defaults__,
        forward.__closure__,
    )
    own.__kwdefaults__ = forward.__kwdefaults__
    namespace = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "forward": own}
    return type(cls.__name__, (cls,), namespace)


def lean_attention(encoder: nn.Module, *, eager: bool) -> None:
    """Let the attentions that ``adapters`` wrote for this type spare what the module docs say.

    Args:
        eager: whether they have no fused kernel (:class:`~mtl.backbone.arch_row.Arch`).
    """
    for module in encoder.modules():
        kind: Any = type(module)
        if MATCH in getattr(getattr(kind.forward, "__code__", None), "co_names", ()):
            module.__class__ = _attending(kind, eager)


# ------------------------------------------------------------------ LoRA


class _Added(torch.autograd.Function):
    """``base + (x Aᵀ Bᵀ) · scale`` of x (B,T,in), A (R,in), B (out,R)."""

    @staticmethod
    def forward(
        ctx: Any, base: Tensor, x: Tensor, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        low = x.view(-1, x.shape[-1]) @ down.t()
        ctx.save_for_backward(x, low, down, up)
        ctx.scale = scale
        return _delta(low, up, scale).view(base.shape).add_(base)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, low, down, up = ctx.saved_tensors
        _, of_x, of_down, of_up, _ = ctx.needs_input_grad
        wide = grad.reshape(-1, grad.shape[-1]) * ctx.scale
        back = wide @ up if of_x or of_down else None
        return (
            grad,
            (back @ down).view(x.shape) if of_x else None,  # type: ignore[operator]
            back.t() @ x.view(-1, x.shape[-1]) if of_down else None,  # type: ignore[union-attr]
            wide.t() @ low if of_up else None,
            None,
        )


def _delta(low: Tensor, up: Tensor, scale: float) -> Tensor:
    return (low @ up.t()).mul_(scale)


class _LoRASeam(LoRALinearTorch):
    """A linear of ``adapters`` whose one active LoRA is added by :class:`_Added`."""

    def forward(self, input_states: Tensor) -> Tensor:
        lora = self._alone(input_states)
        if lora is None:
            plain: Tensor = super().forward(input_states)
            return plain
        base = functional.linear(input_states, self.weight, self.bias)
        if "forward" in vars(lora):  # of several runs at once (mtl.backbone.beside_sites)
            together: Tensor = lora.forward(None, input_states)[0] + base
            return together
        x, down, up = lora.lora_dropout(input_states), lora.lora_A, lora.lora_B
        if torch.is_grad_enabled():
            added: Tensor = _Added.apply(base, x, down, up, lora.scaling)
            return added
        low = x.view(-1, x.shape[-1]) @ down.t()
        return _delta(low, up, lora.scaling).view(base.shape).add_(base)

    def _alone(self, x: Tensor) -> Any:
        """The LoRA that is active here by itself and computes as it is written; or None."""
        if not self.loras or self.merged or self.fan_in_fan_out:
            return None
        setup = self.get_active_setup()
        if type(setup) is not Stack or len(setup) != 1 or setup[0] not in self.loras:
            return None
        lora: Any = self.loras[setup[0]]
        plainly = (
            type(lora) is LoRA
            and not (lora.use_dora or lora.use_gating)
            and not (lora._forward_hooks or lora._forward_pre_hooks or lora._backward_hooks)
            and x.dtype == lora.lora_A.dtype
            and x.dim() == 3
            and x.is_contiguous()
            and not _autocast(x.device.type)
        )
        return lora if plainly else None


def _autocast(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def lean_lora(encoder: nn.Module) -> None:
    """Let every linear of ``encoder`` that ``adapters`` made add a LoRA as :class:`_LoRASeam`."""
    for module in encoder.modules():
        if type(module) is LoRALinearTorch:
            module.__class__ = _LoRASeam
