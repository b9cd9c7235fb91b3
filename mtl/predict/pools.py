"""Sources of many entries in memory once, and the product of a batch whose rows are of many.

At a site, with N sources of rank R (narrower ones filled up with zeros) in one pool::

    down (N,R,in)   down_bias (N,R)   up (N,R,out)   up_bias (N,out)

an entry is K numbers of sources and ω (K,out), never a folded matrix of its own. For n rows, z
(n,T,in), with i (n,K) the sources of each row and ω (n,K,out) its scales::

    h   = act(z · down[i]^T + down_bias[i])                       (n,T,K·R)
    out = h · (up[i] ⊙ ω) + Σ_k ω_k ⊙ up_bias[i_k]                (n,T,out)

two batched products, however many entries the rows are of. Where all rows have the same sources,
``down`` is one plain product for all; where they are of one entry, ``up`` is one, too. Of an entry
with gates by group a row's ω_k is g_k·ω_k, g (K,) those of its group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor

from mtl.methods.source import activation
from mtl.predict.parts import Gates, Parts, SourceParts


class Form(NamedTuple):
    """Entries of one form are computed together; one product per form and site.

    Attributes:
        placement, activation: as in :class:`~mtl.predict.parts.Parts`.
        sites: their keys.
        rank, sources: R and K are at most this, a power of two.
    """

    placement: str
    activation: str
    sites: tuple[str, ...]
    rank: int
    sources: int


def form_of(parts: Parts) -> Form:
    """The form of an entry."""
    widest = max(down.shape[0] for s in parts.sources for down, *_ in s.sites.values())
    count = len(parts.sources)
    return Form(parts.placement, parts.activation, tuple(parts.omega), _ceil(widest), _ceil(count))


def _ceil(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


class Pool:
    """The sources that entries of like forms use, each once, stacked by site.

    Attributes:
        sources: by key, with how many entries use it.
        stacks: site → down, down_bias, up, up_bias as above; right after :meth:`seal`.
        numbers: key → its place in the stacks.
    """

    def __init__(self, act: str, device: torch.device) -> None:
        self.act, self.device = activation(act), device
        self.sources: dict[str, tuple[SourceParts, int]] = {}
        self.stacks: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self.numbers: dict[str, int] = {}
        self.sealed = False

    def take(self, sources: Iterable[SourceParts]) -> None:
        """Count one more user of each, and hold those that are new."""
        for source in sources:
            held, users = self.sources.get(source.key, (source, 0))
            self.sources[source.key] = held, users + 1
            self.sealed &= users > 0

    def release(self, keys: Iterable[str]) -> None:
        """Count one user less of each, and drop those that nobody uses."""
        for key in keys:
            source, users = self.sources.pop(key)
            if users > 1:
                self.sources[key] = source, users - 1
            else:
                self.sealed = False

    def seal(self) -> None:
        """Stack what is held, if that changed; the sources are views of the stacks then."""
        if self.sealed:
            return
        self.numbers = {key: place for place, key in enumerate(self.sources)}
        self.stacks = {}
        held = [source.sites for source, _ in self.sources.values()]
        for site in list(held[0]) if held else []:
            parts = [sites[site] for sites in held]
            rank = max(part[0].shape[0] for part in parts)
            stack = [
                torch.stack([_padded(part[i], rank) for part in parts]).to(self.device)
                for i in range(3)
            ]
            stack.append(torch.stack([part[3] for part in parts]).to(self.device))
            down, down_bias, up, up_bias = stack
            self.stacks[site] = down, down_bias, up, up_bias
            for place, (sites, part) in enumerate(zip(held, parts, strict=True)):
                own = part[0].shape[0]  # what it held of its own is freed, site by site
                sites[site] = (
                    down[place, :own],
                    down_bias[place, :own],
                    up[place, :own],
                    up_bias[place],
                )
        self.sealed = True

    @property
    def bytes(self) -> int:
        """Of the stacks."""
        return sum(t.nbytes for stack in self.stacks.values() for t in stack)


def _padded(tensor: Tensor, rows: int) -> Tensor:
    more = rows - tensor.shape[0]
    return tensor if not more else torch.cat([tensor, tensor.new_zeros(more, *tensor.shape[1:])])


class Group:
    """The entries of one form over one pool.

    Attributes:
        names: of the entries, in the order of their slots.
        index: (E,K) sources in the pool; where there are less than K, the first with ω = 0.
        omega: site → (E,K,out).
    """

    def __init__(self, form: Form, pool: Pool) -> None:
        self.form, self.pool = form, pool
        self.names: list[str] = []
        self._keys: list[list[str]] = []
        self._omega: list[dict[str, Tensor]] = []
        self._gates: list[Gates | None] = []
        self.index = torch.zeros(0, 0, dtype=torch.long)
        self.omega: dict[str, Tensor] = {}
        self._sealed = True

    def add(self, name: str, parts: Parts) -> None:
        """Take an entry in; :meth:`seal` makes it usable."""
        self.pool.take(parts.sources)
        self.names.append(name)
        self._keys.append([source.key for source in parts.sources])
        self._omega.append(
            {site: _padded(omega, self.form.sources) for site, omega in parts.omega.items()}
        )
        self._gates.append(parts.gates and parts.gates.padded(self.form.sources, self.pool.device))
        self._sealed = False

    def remove(self, name: str) -> None:
        """Let an entry go, and with it the sources that were its alone."""
        slot = self.names.index(name)
        self.pool.release(self._keys[slot])
        for held in (self.names, self._keys, self._omega, self._gates):
            del held[slot]
        self._sealed = False

    def seal(self) -> None:
        """Make the stacks those of the entries held; the pool is sealed before."""
        numbers = self.pool.numbers
        rows = [[numbers[key] for key in keys] for keys in self._keys]
        # Filled up with a source of its own: then rows of like sources stay alike.
        full = [row + row[:1] * (self.form.sources - len(row)) for row in rows]
        self.index = torch.tensor(full, dtype=torch.long, device=self.pool.device)
        if self._sealed:
            return
        for site in list(self._omega[0]) if self._omega else []:
            stack = torch.stack([own[site] for own in self._omega]).to(self.pool.device)
            self.omega[site] = stack
            for own, view in zip(self._omega, stack, strict=True):
                own[site] = view
        self._sealed = True

    def span(self, names: Sequence[str], groups: Sequence[str], start: int) -> Span:
        """Rows of these entries and groups, which stand from ``start`` on in a batch."""
        places = {name: slot for slot, name in enumerate(self.names)}
        slots = [places[name] for name in names]
        rows = torch.tensor(slots, device=self.pool.device)
        alike = len({tuple(self._keys[slot]) for slot in set(slots)}) == 1
        one = slots[0] if len(set(slots)) == 1 else None
        index = self.index[slots[0]] if alike else self.index[rows]
        return Span(
            self, start, start + len(slots), rows, index, one, self._gates_of(slots, groups)
        )

    def _gates_of(self, slots: Sequence[int], groups: Sequence[str]) -> Tensor | None:
        if all(self._gates[slot] is None for slot in set(slots)):
            return None
        ones = torch.ones(self.form.sources, device=self.pool.device)
        held = [(self._gates[slot], name) for slot, name in zip(slots, groups, strict=True)]
        return torch.stack([ones if gates is None else gates.of(name) for gates, name in held])

    @property
    def bytes(self) -> int:
        """Of ω and gates of all entries."""
        gates = sum(held.table.nbytes for held in self._gates if held is not None)
        return gates + sum(omega.nbytes for omega in self.omega.values())


@dataclass(frozen=True)
class Span:
    """Neighbouring rows of a batch whose entries are of one group.

    Attributes:
        start, stop: where they stand.
        rows: (n,) slot of each row's entry.
        index: (K,) the sources of all rows where those are the same, else (n,K).
        one: the slot of all rows where they are of one entry, else None.
        gates: (n,K) of each row's group, 1 where its entry has none; None where no entry has any.
    """

    group: Group
    start: int
    stop: int
    rows: Tensor
    index: Tensor
    one: int | None
    gates: Tensor | None = None

    def mix(self, z: Tensor, site: str) -> Tensor:
        """(n,T,in) → (n,T,out): what each row's entry adds at a site, before any residual."""
        down, down_bias, up, up_bias = self.group.pool.stacks[site]
        omega, index = self.group.omega[site], self.index
        # (…,K·R,in), (…,K·R), (…,K,R,out), (…,K,out), with n in front where rows differ
        down, down_bias = down[index].flatten(-3, -2), down_bias[index].flatten(-2)
        up, up_bias = up[index], up_bias[index]
        act = self.group.pool.act
        if index.dim() == 1:
            h = act(functional.linear(z, down, down_bias))
        else:
            h = act(torch.baddbmm(down_bias.unsqueeze(1), z, down.transpose(1, 2)))
        if self.one is not None:
            scale = omega[self.one]
            weight = (up * scale.unsqueeze(1)).flatten(0, 1)
            if self.gates is None:
                return functional.linear(h, weight.t(), (scale * up_bias).sum(0))
            h = (h.unflatten(-1, up.shape[:2]) * self.gates[:, None, :, None]).flatten(-2)
            return functional.linear(h, weight.t()) + (self.gates @ (scale * up_bias)).unsqueeze(1)
        scale = omega[self.rows]
        if self.gates is not None:
            scale = scale * self.gates.unsqueeze(2)
        weight = (up * scale.unsqueeze(2)).flatten(1, 2)
        return torch.baddbmm((scale * up_bias).sum(1).unsqueeze(1), h, weight)
