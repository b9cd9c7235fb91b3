"""The torch side of :mod:`mtl.compose.gated`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mtl.backbone.draws import PerStep
from mtl.compose.composition import Composed
from mtl.compose.gated import GatedSettings
from mtl.compose.modules.scalearn import held, scalearn_sites
from mtl.compose.scalearn import ScaLearnSettings
from mtl.compose.sites import load_stored
from mtl.zoo.composition import OMEGA, SourceWeights, weigh

SCALES, GATES = "scales", "gates"
TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1
"""Of the hard concrete distribution, as its paper has them."""


class Gates:
    """``v (K,D) → z · s · (1 + v)``, with z and s of all sites.

    Attributes:
        scales, logits: s and a, both (K,1).
        stored: whether omegas were loaded, which are used as they are.
    """

    def __init__(self, scales: nn.Parameter, logits: nn.Parameter) -> None:
        self.scales, self.logits, self.stored = scales, logits, False
        self._noise: PerStep[Tensor] = PerStep()

    def open(self, *, training: bool) -> Tensor:
        """z (K,1): how far every gate is open; while training by the noise of this step."""
        logits: Tensor = self.logits
        if training:
            noise = self._noise(lambda: torch.rand_like(logits).clamp(1e-6, 1 - 1e-6))
            logits = (noise.log() - (1 - noise).log() + logits) / TEMPERATURE
        return (logits.sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)

    def omega(self, vectors: Tensor, *, training: bool) -> Tensor:
        """omega (K,D) of a site."""
        if self.stored:
            return vectors
        return self.open(training=training) * self.scales * (1 + vectors)

    def expected_open(self) -> Tensor:
        """How many gates are above 0, in expectation."""
        return (self.logits - TEMPERATURE * math.log(-LOW / HIGH)).sigmoid().sum()


def attach(encoder: Any, sources: Sequence[str], settings: GatedSettings) -> Composed:
    """Put gated ScaLearn over the adapters named ``sources`` into ``encoder``; active.

    Drawing of v uses torch's global generator, which the run has seeded.

    Raises:
        RequestError: see :func:`mtl.compose.modules.scalearn.attach`.
    """
    sites = scalearn_sites(encoder, sources)
    device = next(iter(sites.values())).bank.up.device
    shape = (len(sources), 1)
    scales = nn.Parameter(torch.full(shape, settings.start, device=device))
    logits = nn.Parameter(torch.full(shape, settings.open, device=device))
    gates = Gates(scales, logits)
    shared = ScaLearnSettings(dropout=settings.dropout)
    vectors: dict[str, nn.Parameter] = {}
    for key, site in sites.items():
        drawn = torch.empty(len(sources), site.bank.up.shape[1], device=device)
        vectors[key] = nn.Parameter(drawn.normal_(0, settings.init_std))
        site.bind(vectors[key], shared, gates.omega)
    # One registration on the encoder, so that `.to(device)` moves them with the rest.
    encoder.register_module(
        "omega",
        nn.ParameterDict(
            {
                SCALES: scales,
                GATES: logits,
                **{k.replace(".", "_"): p for k, p in vectors.items()},
            }
        ),
    )
    named = {f"{OMEGA}.{key}": parameter for key, parameter in vectors.items()}

    def tensors() -> dict[str, Tensor]:
        with torch.no_grad():
            return {name: gates.omega(v, training=False).clone() for name, v in named.items()}

    def load(stored: Mapping[str, Tensor]) -> None:
        load_stored(OMEGA, named, stored)
        gates.stored = True

    def penalty() -> Mapping[str, Tensor]:
        return {"l0": settings.l0 * gates.expected_open()}

    return Composed(
        parameters={SCALES: scales, GATES: logits, **named},
        tensors=tensors,
        load=load,
        evaluating=partial(held, sites.values()),
        penalties=(penalty,) if settings.l0 else (),
        lr_factors=dict.fromkeys((SCALES, GATES), settings.gate_rate),
    )


def shares(composed: Composed, settings: GatedSettings) -> SourceWeights:
    """omega as it enters the sum, the same for every input. Raises ZooError as ``weigh``."""
    used = {
        name.partition(".")[2]: v.double().cpu().numpy() for name, v in composed.tensors().items()
    }
    return weigh(OMEGA, used)
