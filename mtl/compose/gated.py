"""Gated ScaLearn: two numbers per source say whether it is used and how much, vectors say where.

At every site, with the gates z (K,) and the scales s (K,) shared by all sites and v (K,D) of its
own::

    omega_kd = z_k · s_k · (1 + v_kd)          out = LN( Σ_k omega_k ⊙ u_k  +  h  +  x )

ScaLearn learns everything at once: at a rate that suits vectors, no omega gets far from its start,
and no source is ever let go. Here s and z have a rate of their own (``gate_rate`` · lr), and what
all layers have in common decides which sources matter. z is a hard concrete gate (Louizos et al.
2018, arXiv:1712.01312) with logit a_k and uniform noise u, one draw per optimiser step for all
sites::

    z_k = clip( 1.2 · sigmoid((log u - log(1 - u) + a_k) / (2/3)) - 0.1,  0, 1 )     while training
    z_k = clip( 1.2 · sigmoid(a_k) - 0.1,  0, 1 )                                    afterwards

The loss has ``l0`` times the number of gates that are expected to be open, so a source that does
not pay for itself is closed: then z_k is 0 and the source absent. The noise closes the target's own
adapter now and then, too, which has seen the training rows and explains them alone, so that the
others are tried.

Stored is omega, as of the ScaLearn family, so it folds into one stock adapter like the rest. Ours,
around the vectors of Frohmann et al. 2024, arXiv:2310.01217.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtl.compose.composition import Composition
from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.lazy import later


@dataclass(frozen=True)
class GatedSettings:
    """Settings of gated ScaLearn.

    Attributes:
        gate_rate: learning rate of gates and scales, as a multiple of the run's.
        l0: weight of the expected number of open gates in the loss.
        start: s at the start.
        open: a at the start; 2 opens a gate by 0.96.
        init_std: standard deviation of v at the start.
        dropout: probability of dropping an entry of omega while training.
    """

    gate_rate: float = 10.0
    l0: float = 0.06
    start: float = 1.0
    open: float = 2.0
    init_std: float = 1e-3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise RequestError(f"dropout={self.dropout} must be at least 0 and below 1.")
        if not self.gate_rate > 0:
            raise RequestError(f"gate_rate={self.gate_rate} must be above 0.")
        for name in ("l0", "init_std"):
            if getattr(self, name) < 0:
                raise RequestError(f"{name}={getattr(self, name)} must not be negative.")


GATED = Composition(
    "gated",
    GatedSettings,
    {},
    later("mtl.compose.modules.gated:attach"),
    later("mtl.compose.modules.gated:shares"),
    "a gate and a scale per source, times a scale per source, dimension and layer",
    "ours; gates of Louizos et al. 2018, arXiv:1712.01312, on ScaLearn, arXiv:2310.01217",
    training=Training(
        "ours: as scalearn is trained", {"lr": 6e-3, "epochs": 30, "patience": "30 epochs"}
    ),
)
