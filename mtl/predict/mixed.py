"""One frozen encoder that answers rows of many entries in one pass.

The rows of a batch stand sorted by entry, so that entries that are computed together are one slice
at every site. ``adapters`` prepares inputs and residuals as for any composition: for every
placement among the entries the encoder has one bottleneck that only says where things are (a
*frame*), with a :class:`MixedSite` in place of its sources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from adapters import AdapterConfig, BnConfig
from adapters.composition import Fuse
from torch import Tensor, nn

from mtl.backbone.cores import FUSION_MODULES
from mtl.backbone.injection import FusionSite, bottleneck_layers, freeze
from mtl.backbone.linear import add_delta, linear_sites
from mtl.predict.many_heads import HeadGroup, head_key
from mtl.predict.pools import Form, Group, Pool, Span, form_of

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.predict.parts import Parts, SourceParts


@dataclass
class Frame:
    """Neighbouring rows of one placement; ``setup`` None: nothing at bottleneck sites."""

    setup: Fuse | None
    start: int
    stop: int
    spans: list[Span]


@dataclass
class Way:
    """What the sites need to know of the batch that is on its way.

    Attributes:
        frames: of all rows, in their order.
        frame: the one that a layer is at.
        linear: spans of low-rank entries.
    """

    frames: list[Frame] = field(default_factory=list)
    frame: Frame | None = None
    linear: list[Span] = field(default_factory=list)


@dataclass(eq=False)
class MixedFusion(AdapterConfig):
    """The config under which ``adapters`` knows a mixed site."""

    architecture: str = "mtl_mixed"


class MixedSite(FusionSite):
    """z (n,T,D) of the rows of one frame → what each row's entry makes of it, (n,T,D)."""

    def __init__(self) -> None:
        super().__init__()
        self.way, self.key = Way(), ""

    def forward(self, z: Tensor) -> Tensor:
        frame = self.way.frame
        assert frame is not None, "a mixed site is reached by the rows of a frame"
        return _joined(
            [
                span.mix(z[span.start - frame.start : span.stop - frame.start], self.key)
                for span in frame.spans
            ]
        )


FUSION_MODULES[MixedFusion] = lambda layer, sources, config: MixedSite()


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


class Mixed(nn.Module):
    """Encoder, sources, scales and heads of many entries.

    Args:
        backbone: its :meth:`~mtl.backbone.Backbone.encoder` is the one encoder.
    """

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        super().__init__()
        self.encoder: Any = backbone.encoder().to(device)
        self.device = device
        self.groups: dict[Form, Group] = {}
        self.heads: dict[Any, HeadGroup] = {}
        self.way = Way()
        self._pools: dict[Any, Pool] = {}
        self._members: dict[str, tuple[Group, HeadGroup]] = {}
        self._frames: dict[str, Fuse] = {}
        self._hooked: set[str] = set()
        for _, _, layer in bottleneck_layers(self.encoder):
            plain = layer.bottleneck_layer_forward
            layer.bottleneck_layer_forward = partial(self._through, plain)

    def add(self, name: str, parts: Parts) -> None:
        """Take an entry in. Answers are right again after :meth:`seal`."""
        form = form_of(parts)
        pool = self._pools.setdefault(form[:-1], Pool(form.activation, self.device))
        group = self.groups.setdefault(form, Group(form, pool))
        if form.placement:
            self._add_frame(form.placement)
        else:
            self._add_hooks(parts.omega)
        group.add(name, parts)
        assert parts.head is not None
        heads = self.heads.setdefault(head_key(parts.head), HeadGroup(parts.head, self.device))
        heads.add(name, parts.head)
        self._members[name] = group, heads

    def remove(self, name: str) -> None:
        """Let an entry go, and what it alone used. Answers are right again after :meth:`seal`."""
        group, heads = self._members.pop(name)
        group.remove(name)
        heads.remove(name)
        if not group.names:
            del self.groups[group.form]
        if not heads.names:
            self.heads = {key: held for key, held in self.heads.items() if held is not heads}
        used = [held.pool for held in self.groups.values()]
        self._pools = {key: pool for key, pool in self._pools.items() if pool in used}

    def seal(self) -> None:
        """Stack what was taken in or let go since the last time."""
        for pool in self._pools.values():
            pool.seal()
        for group in self.groups.values():
            group.seal()
        for heads in self.heads.values():
            heads.seal()

    @property
    def bytes(self) -> int:
        """What the entries take beside the encoder."""
        sources = sum(pool.bytes for pool in self._pools.values())
        scales = sum(group.bytes for group in self.groups.values())
        return sources + scales + sum(heads.bytes for heads in self.heads.values())

    def source(self, key: str) -> SourceParts | None:
        """The source of this key, if an entry uses it."""
        found = (pool.sources.get(key) for pool in self._pools.values())
        return next((held[0] for held in found if held is not None), None)

    def rank(self, name: str) -> tuple[Any, ...]:
        """By what rows are to be sorted: those computed together stand together."""
        group, _ = self._members[name]
        return group.form, group.names.index(name)

    @torch.no_grad()
    def forward(
        self, batch: Mapping[str, Tensor], names: Sequence[str], groups: Sequence[str]
    ) -> list[Tensor]:
        """Logits of every sequence, (C,) or over tokens (T,C), C as its entry's head has.

        Args:
            batch: as :class:`mtl.backbone.Network` reads it, N sequences.
            names: entry of each, sorted by :meth:`rank`.
            groups: group of each by which its entry's gates go; any where it has none.
        """
        self.way.frames, self.way.linear = self._frames_of(names, groups)
        output = self.encoder(
            **{
                key: batch[key]
                for key in ("input_ids", "attention_mask", "token_type_ids")
                if key in batch
            }
        )
        found: list[Tensor | None] = [None] * len(names)
        by_head: dict[int, list[int]] = {}
        for row, name in enumerate(names):
            by_head.setdefault(id(self._members[name][1]), []).append(row)
        for rows in by_head.values():
            heads = self._members[names[rows[0]]][1]
            read = heads.read(output, batch["attention_mask"], rows, [names[row] for row in rows])
            for row, logits in zip(rows, read, strict=True):
                found[row] = logits
        return [logits for logits in found if logits is not None]

    def _frames_of(
        self, names: Sequence[str], groups: Sequence[str]
    ) -> tuple[list[Frame], list[Span]]:
        frames: list[Frame] = []
        linear: list[Span] = []
        start = 0
        for group, own in groupby(names, key=lambda name: self._members[name][0]):
            members = list(own)
            span = group.span(members, groups[start : start + len(members)], start)
            setup = self._frames.get(group.form.placement)
            if not frames or frames[-1].setup is not setup:
                frames.append(Frame(setup, start, start, []))
            frames[-1].stop = start = span.stop
            (linear if setup is None else frames[-1].spans).append(span)
        return frames, linear

    def _through(
        self,
        plain: Any,
        hidden_states: Tensor,
        residual_input: Tensor | None,
        layer_norm: nn.Module | None,
    ) -> Tensor:
        """A bottleneck layer, frame by frame; arguments by the names of ``adapters``."""
        found = []
        for frame in self.way.frames:
            self.way.frame, self.encoder.adapters_config.active_setup = frame, frame.setup
            rows = slice(frame.start, frame.stop)
            residual = None if residual_input is None else residual_input[rows]
            found.append(plain(hidden_states[rows], residual, layer_norm))
        return _joined(found)

    def _add_frame(self, placement: str) -> None:
        if placement in self._frames:
            return
        fields = {key: value for key, value in json.loads(placement).items() if key in _FIELDS}
        name = f"frame{len(self._frames):04d}"
        config = BnConfig(
            **fields, reduction_factor=self.encoder.config.hidden_size, non_linearity="relu"
        )
        self.encoder.add_adapter(name, config=config)
        self.encoder.add_adapter_fusion([name], config=MixedFusion(), name=name)
        freeze(self.encoder)
        self.encoder.eval().to(self.device)
        for index, location, layer in bottleneck_layers(self.encoder):
            if name in layer.adapter_fusion_layer:
                site: Any = layer.adapter_fusion_layer[name]
                site.way, site.key = self.way, f"{index}.{location}"
        self._frames[placement] = Fuse(name, name=name)

    def _add_hooks(self, sites: Mapping[str, Any]) -> None:
        new = [site for site in sites if site not in self._hooked]
        modules = list(dict.fromkeys(site.partition(".")[2] for site in new))
        linears = linear_sites(self.encoder, modules)
        for site in new:
            add_delta(linears[site], partial(self._delta, site))
            self._hooked.add(site)

    def _delta(self, site: str, x: Tensor) -> Tensor:
        """(N,T,in) → (N,T,out): what low-rank entries add at a linear; nothing to other rows."""
        spans = [span for span in self.way.linear if site in span.group.omega]
        if not spans:
            return x.new_zeros(())
        if len(x) != self.way.frames[-1].stop:
            raise AssertionError(f"{site} of this base does not see its rows one by one")
        mixed = [span.mix(x[span.start : span.stop], site) for span in spans]
        if len(spans) == 1 and len(mixed[0]) == len(x):
            return mixed[0]
        found = mixed[0].new_zeros(*x.shape[:-1], mixed[0].shape[-1])
        for span, part in zip(spans, mixed, strict=True):
            found[span.start : span.stop] = part
        return found


_FIELDS = BnConfig.__dataclass_fields__
"""What a signature has beside these (``late_dropout``) says nothing in evaluation."""
