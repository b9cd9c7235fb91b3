"""Probing: one or two frozen sources at fixed scales; only a head learns.

At every site ``out = LN( Σ_k s_k u_k + h + x )`` with the same s_k everywhere: how useful is a
source, and at which strength (Frohmann et al. 2024)? The paper takes s from
{0, 0.1, 0.3, 0.5, 0.7, 0.9, 1} for single sources, and the grid of it for pairs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtl.compose.composition import Composed, Composition
from mtl.compose.per_source import values_of
from mtl.compose.scalearn import ScaLearnSettings
from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.lazy import later
from mtl.words import counted

SCALES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""The paper's."""


@dataclass(frozen=True)
class ProbeSettings:
    """Settings of probing.

    Attributes:
        scales: s_k of every source by its task, as ``rte:0.5,mrpc:1`` (numbers alone follow
            ``--sources``); a single number is for all of them.
    """

    scales: str = "1"

    def __post_init__(self) -> None:
        self.numbers()

    def numbers(self) -> list[float]:
        """The scales as numbers.

        Raises:
            RequestError: something in it is none.
        """
        found = values_of(self.scales, "scales", "0.5,1")
        if not all(math.isfinite(number) for number in found):
            raise RequestError(f"scales={self.scales!r} must be finite numbers.")
        return found


def grid(values: Sequence[float], sources: int) -> list[ProbeSettings]:
    """Settings of every combination of ``values`` for one source, or for two.

    Raises:
        RequestError: another number of sources, or a value twice.
    """
    if sources not in (1, 2):
        raise RequestError(
            f"--probe takes one source or two, not {sources}: name them with --sources."
        )
    if len(set(values)) != len(values):
        raise RequestError(f"--probe names a scale twice: {', '.join(map(str, values))}.")
    return [
        ProbeSettings(",".join(f"{number:g}" for number in chosen))
        for chosen in itertools.product(values, repeat=sources)
    ]


_FIXED = ScaLearnSettings(per="source", share_layers=True, learn=False, init_std=0.0, dropout=0.0)


def attach(encoder: Any, sources: Sequence[str], settings: ProbeSettings) -> Composed:
    """Compose the adapters named ``sources`` at fixed scales; active.

    Raises:
        RequestError: not one scale per source.
    """
    import torch

    from mtl.compose.modules import scalearn

    numbers = settings.numbers()
    if len(numbers) == 1:
        numbers *= len(sources)
    if len(numbers) != len(sources):
        raise RequestError(
            f"scales={settings.scales!r} are {len(numbers)} for {counted(len(sources), 'source')}."
        )
    found = scalearn.attach(encoder, sources, _FIXED)
    with torch.no_grad():
        for omega in encoder.omega.values():
            omega.copy_(torch.tensor(numbers).unsqueeze(1))
    return found


_shares = later("mtl.compose.modules.scalearn:shares")

PROBE = Composition(
    name="probe",
    settings=ProbeSettings,
    defaults={},
    attach=attach,
    shares=lambda composed, _: _shares(composed, _FIXED),
    summary="one or two sources at fixed scales; only the head learns (--probe: a whole grid)",
    citation="Frohmann et al. 2024, ScaLearn, arXiv:2310.01217",
    per_source="scales",
    training=Training(
        "CPJKU/ScaLearn, src/scripts/probing", {"lr": 0.0003, "epochs": 30, "patience": "5 epochs"}
    ),
)
