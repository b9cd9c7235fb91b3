"""Rows of several runs in one pass through one frozen encoder.

Each of N runs has modules of its own (adapters, scales, a head) on the same frozen encoder. What is
frozen reads the rows of all of them at once. At a *site*, a module that trains, rows are laid out
by run, and the N modules there are one batched product::

    x (M,T,D), M = Σ n_i   →   (N,n,T,D), n = max n_i   →   (N,n,T,D')   →   (M,T,D')

Draws are those of a run by itself: each run has a generator of its own, and the mask of a dropout
is drawn run by run, as large as the run alone would have drawn it, whichever of its rows are in the
pass. So what a run becomes does not depend on its neighbours but for the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from mtl.backbone.lean import attended


class UnfitError(Exception):
    """Something here cannot be computed for several runs at once; they go one by one."""


@dataclass
class Piece:
    """What of a run's batch it would take through the network in one pass, alone.

    Attributes:
        run: its number. generator: what it draws with.
        rows, tokens: sequences, and the length of the longest of them.
        masks: what was drawn for it, in order, as long as other passes need their part of it.
    """

    run: int
    generator: torch.Generator
    rows: int
    tokens: int
    masks: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Member:
    """The rows of a pass that belong to one run: ``places`` in its piece, None for all of them."""

    piece: Piece
    places: Tensor | None = None

    @property
    def rows(self) -> int:
        """How many."""
        return self.piece.rows if self.places is None else len(self.places)


@dataclass(frozen=True)
class Blocks:
    """Which rows of a pass belong to which run: a member each, in ascending order of runs.

    Attributes:
        width: T, the length of the longest row.
    """

    members: tuple[Member, ...]
    width: int

    @cached_property
    def runs(self) -> list[int]:
        """Numbers of the runs that have rows in it."""
        return [member.piece.run for member in self.members]

    @cached_property
    def rows(self) -> list[int]:
        """n_i of each."""
        return [member.rows for member in self.members]

    @cached_property
    def total(self) -> int:
        """M."""
        return sum(self.rows)

    def spread(self, x: Tensor) -> Tensor:
        """(M,…) → (N,n,…); where a run has fewer rows than n, zeros stand for them."""
        shape = (len(self.rows), max(self.rows), *x.shape[1:])
        if shape[0] * shape[1] == len(x):
            return x.reshape(shape)
        there, back, none = self._places(x.device)
        return _moved(x, there, none, back, None).view(shape)

    def gather(self, x: Tensor) -> Tensor:
        """(N,n,…) → (M,…), what :meth:`spread` laid out."""
        flat = x.reshape(-1, *x.shape[2:])
        if len(flat) == self.total:
            return flat
        there, back, none = self._places(x.device)
        return _moved(flat, back, None, there, none)

    @cached_property
    def _known(self) -> dict[torch.device, tuple[Tensor, Tensor, Tensor]]:
        return {}

    def _places(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Of N·n places the row of M in each; of M rows their places; the places without a row."""
        if device not in self._known:
            most, start = max(self.rows), 0
            there: list[int] = []
            back: list[int] = []
            none: list[int] = []
            for number, rows in enumerate(self.rows):
                first = number * most
                there += [*range(start, start + rows), *[start] * (most - rows)]
                back += range(first, first + rows)
                none += range(first + rows, first + most)
                start += rows
            made = (torch.tensor(each, device=device) for each in (there, back, none))
            self._known[device] = tuple(made)  # type: ignore[assignment]
        return self._known[device]


class _Moved(torch.autograd.Function):
    """``x[to]``, with zeros at ``empty``; backwards the same with ``back`` and ``holes``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *places: Tensor | None) -> Tensor:
        ctx.places = places
        return _picked(x, *places[:2])  # type: ignore[arg-type]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _picked(grad, *ctx.places[2:]), None, None, None, None


def _picked(x: Tensor, places: Tensor, empty: Tensor | None) -> Tensor:
    found = x.index_select(0, places)
    return found if empty is None else found.index_fill_(0, empty, 0)


def _moved(
    x: Tensor, to: Tensor, empty: Tensor | None, back: Tensor, holes: Tensor | None
) -> Tensor:
    if not (x.requires_grad and torch.is_grad_enabled()):
        return _picked(x, to, empty)
    moved: Tensor = _Moved.apply(x, to, empty, back, holes)
    return moved


class Draws(TorchFunctionMode):
    """Dropout with every run's own generator; other draws are refused. For one pass.

    It acts while it is entered, as any mode of torch, and costs something at every call then.

    Inside :meth:`of`, what is drawn is one run's alone; elsewhere a tensor has the rows of all, or,
    inside :meth:`rows_of`, of one member. A mask is drawn for a whole piece when the first of its
    rows needs it; the others take their part of it when they come.

    Raises:
        UnfitError: a draw of another kind, or over something that has no rows.
    """

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self._blocks = blocks
        self._members: Sequence[Member] = blocks.members
        self._alone: torch.Generator | None = None
        self.drawn: Callable[[], None] = lambda: None
        """Told whenever something may be drawn."""
        self.lane: Tensor | None = None
        """Inside of a ``vmap`` over runs, whose rows are then (n,…): which run it is."""
        self._next = {member.piece.run: 0 for member in blocks.members}
        self._old = {member.piece.run: len(member.piece.masks) for member in blocks.members}

    @contextmanager
    def of(self, member: Member) -> Iterator[None]:
        """What is drawn inside is the run's, and none of its rows'."""
        self._alone = member.piece.generator
        try:
            with self:
                yield
        finally:
            self._alone = None

    def mask_of(self, member: Member, like: Tensor, p: float) -> Tensor:
        """A mask for what is the run's and none of its rows', of the shape of ``like``."""
        return _drawn(like.shape, like, p, member.piece.generator)

    def dropped(self, x: Tensor, p: float) -> Tensor:
        """Dropout on x (M,T,D), (M,H,T,T) or (M,D), as inside."""
        return x * self._noise(x, p) if p else x

    @contextmanager
    def rows_of(self, member: Member) -> Iterator[None]:
        """What is drawn inside is for the rows of one member."""
        self._members = (member,)
        try:
            with self:
                yield
        finally:
            self._members = self._blocks.members

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.dropout:
            self.drawn()
            return self._dropout(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            self.drawn()
            return self._attention(*args, **kwargs)
        if func is torch.rand_like and self._alone is not None:
            x = args[0]
            with torch._C.DisableTorchFunction():
                return torch.rand(x.shape, generator=self._alone, dtype=x.dtype, device=x.device)
        if func in _OTHER_DRAWS:
            raise UnfitError(f"{getattr(func, '__name__', func)} draws for all rows at once")
        return func(*args, **kwargs)

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        return self.dropped(input, p) if training else input

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if not dropout_p:
            return functional.scaled_dot_product_attention(
                query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        if is_causal or enable_gqa:
            raise UnfitError("causal attention with dropout")
        return attended(
            query, key, value, attn_mask, scale, lambda weights: self.dropped(weights, dropout_p)
        )

    def _noise(self, x: Tensor, p: float) -> Tensor:
        """Of x (M,T,D), (M,H,T,T) or (M,D): 0 or 1/(1 − p), drawn run by run."""
        if self._alone is not None:
            return _drawn(x.shape, x, p, self._alone)
        members = self._members
        total = sum(member.rows for member in members)
        expected = total if self.lane is None else max(self._blocks.rows)
        if x.dim() not in (2, 3, 4) or x.shape[0] != expected:
            raise UnfitError(f"a dropout on {tuple(x.shape)}, which has no rows of its own")
        along = {2: (), 3: (1,), 4: (2, 3)}[x.dim()]
        if any(x.shape[dim] != self._blocks.width for dim in along):
            raise UnfitError(f"a dropout on {tuple(x.shape)}, not over the tokens")
        with torch._C.DisableTorchFunction():
            noise = _under(
                [self._mask(member, x, p, along) for member in members], (total, *x.shape[1:])
            )
            if self.lane is None:
                return noise
            return self._blocks.spread(noise).index_select(0, self.lane.unsqueeze(0)).squeeze(0)

    def _mask(self, member: Member, x: Tensor, p: float, along: Sequence[int]) -> Tensor:
        """A member's part of its piece's mask: as long as x, or as the piece where that is less."""
        piece, place = member.piece, self._next[member.piece.run]
        self._next[piece.run] += 1
        if place < self._old[piece.run]:
            whole = piece.masks[place]
        else:
            shape = list(x.shape)
            shape[0] = piece.rows
            for dim in along:
                shape[dim] = piece.tokens
            whole = _drawn(shape, x, p, piece.generator)
            if member.places is not None:
                piece.masks.append(whole)
        part = whole if member.places is None else whole[member.places]
        width = self._blocks.width
        for dim in along:
            part = part.narrow(dim, 0, min(width, piece.tokens))
        return part


_OTHER_DRAWS = {
    torch.rand,
    torch.randn,
    torch.rand_like,
    torch.randn_like,
    torch.randint,
    torch.randperm,
    torch.bernoulli,
    torch.multinomial,
    torch.normal,
    torch.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
    functional.gumbel_softmax,
    Tensor.bernoulli,
    Tensor.bernoulli_,
    Tensor.uniform_,
    Tensor.normal_,
    Tensor.exponential_,
    Tensor.random_,
}


def _under(parts: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """The parts under one another, zeros where one is shorter than ``shape``."""
    if all(part.shape[1:] == shape[1:] for part in parts):
        return parts[0] if len(parts) == 1 else torch.cat(list(parts))
    whole, start = parts[0].new_zeros(shape), 0
    for part in parts:
        stop = start + len(part)
        whole[(slice(start, stop), *(slice(0, size) for size in part.shape[1:]))] = part
        start = stop
    return whole


def _drawn(shape: Any, like: Tensor, p: float, generator: torch.Generator) -> Tensor:
    # The very calls of torch's own dropout on a CPU, so that the numbers are its numbers.
    with torch._C.DisableTorchFunction():
        noise = torch.empty(tuple(shape), dtype=like.dtype, device=like.device)
        return noise.bernoulli_(1 - p, generator=generator).div_(1 - p)
