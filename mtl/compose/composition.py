"""What a stage-two composition is, and what attaching one gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mtl.engine.settings import Training
from mtl.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mtl.compose.modules.groups import RowGates
    from mtl.zoo.composition import SourceWeights


MIXED = (
    "low-rank sources (deltas of linear modules) and bottleneck sources (adapters behind a block) "
    "sit at different places and share no input, so no omega can weigh one against the other. "
    "Compose sources of one kind"
)
"""Why sources of two kinds are refused."""


@dataclass(frozen=True)
class Composed:
    """A composition attached to an encoder.

    Attributes:
        parameters: what trains, by stable name.
        tensors: everything the entry stores, trained or fixed, by the names in
            ``composition.safetensors``.
        load: takes those tensors back (raises ZooError if they do not fit).
        lr_factors: of parameters that train at another rate than the run's, by name.
        penalties: further named loss parts, computed per step.
        evaluating: context in which what is constant in evaluation is computed once.
        seen: site → (K,), what weights that depend on the input were in the last evaluation, a mean
            over its real tokens; nothing where they do not, or before one.
        groups: gates that differ by row; None where all rows are answered alike.
    """

    parameters: Mapping[str, nn.Parameter]
    tensors: Callable[[], dict[str, torch.Tensor]]
    load: Callable[[Mapping[str, torch.Tensor]], None]
    penalties: Sequence[Callable[[], Mapping[str, torch.Tensor]]] = ()
    evaluating: Callable[[], AbstractContextManager[None]] = field(default=nullcontext)
    seen: Callable[[], Mapping[str, torch.Tensor]] = dict
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    groups: RowGates | None = None


@dataclass(frozen=True)
class Composition:
    """A way to use frozen sources for a target.

    Attributes:
        name: what ``--method`` takes.
        settings: frozen dataclass of its settings.
        defaults: values by which this name differs from the dataclass' defaults.
        training: the run settings of its paper.
        attach: (encoder, names of the sources in it, settings) → :class:`Composed`, active.
        shares: (composed, settings) → how much it uses each source, asked right after the stored
            model was evaluated on dev; what ``shares.safetensors`` holds
            (:func:`mtl.zoo.composition.weigh` makes it). None where no source has a part of its
            own in the result.
        summary, citation: for ``mtl.methods ls``.
        prepare: (settings, target, source entries, backbone, workspace) → settings, once the
            sources are known; None where they do not depend on them.
        kinds: which sorts of sources it can use, see :attr:`mtl.methods.Method.composes`.
        refusal: why not the others.
        per_source: the setting that holds one value per source, if there is one
            (:mod:`mtl.compose.per_source`).
    """

    name: str
    settings: type
    defaults: Mapping[str, Any]
    attach: Callable[[Any, Sequence[str], Any], Composed]
    shares: Callable[[Composed, Any], SourceWeights | None]
    summary: str
    citation: str
    training: Training = field(default_factory=Training)
    prepare: Callable[..., Any] | None = None
    kinds: Sequence[str] = ("bottleneck", "low_rank")
    refusal: str = ""
    per_source: str = ""


COMPOSITIONS: Registry[Composition] = Registry("composition", Composition, "mtl.compositions")
for _name in ("scalearn", "scalearn-uniform", "scalearn++", "scalearn-uniform++", "average"):
    COMPOSITIONS.add(
        _name, f"mtl.compose.scalearn:{_name.upper().replace('-', '_').replace('++', '_PP')}"
    )
COMPOSITIONS.add("gated", "mtl.compose.gated:GATED")
COMPOSITIONS.add("fusion", "mtl.compose.fusion:FUSION")
COMPOSITIONS.add("probe", "mtl.compose.probe:PROBE")
COMPOSITIONS.add("soup", "mtl.compose.soup:SOUP")
