"""Heads of many entries side by side: one batched product per layer of like heads."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from mtl.backbone import Network
from mtl.backbone.heads import Head


def head_key(head: Head) -> Hashable:
    """What heads that are computed together agree in: all but the number of outputs."""
    how = tuple(sorted((k, v) for k, v in vars(head).items() if not k.startswith("_")))
    linears = [module for module in head if isinstance(module, nn.Linear)]
    widths = tuple((linear.in_features, linear.out_features) for linear in linears)
    return how, tuple(type(module) for module in head), widths[:-1], widths[-1][0]


class _Given(nn.Module):
    """An encoder whose answer is there already."""

    output: Any = None

    def forward(self, **inputs: Tensor) -> Any:
        return self.output


class _Stacked(nn.Module):
    """Layers of like heads, each row through its own: (n,D) → (n,C) or (n,T,D) → (n,T,C)."""

    def __init__(self, like: Head) -> None:
        super().__init__()
        self.like = [like]  # no child: its weights are those of one entry
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.slots: list[int] = []

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # how it is read: use_pooler, tokens, …
            return getattr(super().__getattribute__("like")[0], name)

    def forward(self, x: Tensor) -> Tensor:
        layers = iter(self.layers)
        one = len(set(self.slots)) == 1
        rows = torch.tensor(self.slots, device=x.device)
        for module in self.like[0]:
            if isinstance(module, nn.Linear):
                weight, bias = next(layers)
                if one:
                    x = functional.linear(x, weight[self.slots[0]], bias[self.slots[0]])
                    continue
                wide = x if x.dim() == 3 else x.unsqueeze(1)
                wide = torch.baddbmm(bias[rows].unsqueeze(1), wide, weight[rows].transpose(1, 2))
                x = wide if x.dim() == 3 else wide.squeeze(1)
            elif not isinstance(module, nn.Dropout):
                x = module(x)
        return x


class HeadGroup:
    """The heads of entries that :func:`head_key` does not tell apart.

    Attributes:
        names: of the entries, in the order of their slots.
    """

    def __init__(self, like: Head, device: torch.device) -> None:
        self.names: list[str] = []
        self._device = device
        self._held: list[list[tuple[Tensor, Tensor]]] = []
        self._stacked = _Stacked(like)
        self._network = Network(_Given(), self._stacked)  # type: ignore[arg-type]
        self._network.eval()

    def add(self, name: str, head: Head) -> None:
        """Take a head in; :meth:`seal` makes it usable."""
        linears = [module for module in head if isinstance(module, nn.Linear)]
        self.names.append(name)
        self._held.append([(m.weight.detach(), m.bias.detach()) for m in linears])

    def remove(self, name: str) -> None:
        """Let a head go."""
        slot = self.names.index(name)
        del self.names[slot], self._held[slot]

    def seal(self) -> None:
        """Stack the heads held; those of fewer outputs are filled up with zeros."""
        layers: list[tuple[Tensor, Tensor]] = []
        for depth in range(len(self._held[0]) if self._held else 0):
            own = [held[depth] for held in self._held]
            most = max(weight.shape[0] for weight, _ in own)
            weight = torch.stack([_filled(w, most) for w, _ in own]).to(self._device)
            bias = torch.stack([_filled(b, most) for _, b in own]).to(self._device)
            layers.append((weight, bias))
            for slot, held in enumerate(self._held):
                outputs = held[depth][0].shape[0]
                held[depth] = weight[slot, :outputs], bias[slot, :outputs]
        self._stacked.layers = layers

    def read(
        self, output: Any, attention_mask: Tensor, rows: Sequence[int], names: Sequence[str]
    ) -> list[Tensor]:
        """Logits of ``rows`` of an encoder's output, each by its entry's head."""
        places = {name: slot for slot, name in enumerate(self.names)}
        slots = [places[name] for name in names]
        chosen = torch.tensor(rows, device=attention_mask.device)
        whole = len(rows) == len(attention_mask)
        given: Any = self._network.encoder
        given.output = (
            output
            if whole
            else type(output)(
                **{key: v[chosen] for key, v in output.items() if isinstance(v, Tensor)}
            )
        )
        self._stacked.slots = slots
        mask = attention_mask if whole else attention_mask[chosen]
        logits = self._network({"attention_mask": mask})
        given.output = None
        return [
            row[..., : self._held[slot][-1][0].shape[0]]
            for row, slot in zip(logits, slots, strict=True)
        ]

    @property
    def bytes(self) -> int:
        """Of all heads."""
        return sum(w.nbytes + b.nbytes for w, b in self._stacked.layers)


def _filled(tensor: Tensor, rows: int) -> Tensor:
    more = rows - tensor.shape[0]
    return tensor if not more else torch.cat([tensor, tensor.new_zeros(more, *tensor.shape[1:])])
