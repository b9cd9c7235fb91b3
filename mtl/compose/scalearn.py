"""ScaLearn: learned scales on the outputs of frozen source adapters.

At every site, with z the sources' common input, h the residual and x the block's input::

    u_k = U_k act(D_k z + c_k) + b_k
    out = LN( Σ_k omega_k ⊙ u_k  +  h  +  x )

======================  =====================  =====================  ==================
name                    omega                  parameters (pfeiffer)  dropout on omega
======================  =====================  =====================  ==================
``scalearn``            (K,D) per layer        L·K·D                  0.3
``scalearn-uniform``    (K,1) per layer        L·K                    0.3
``scalearn++``          (K,D) for all layers   K·D                    0.3
``scalearn-uniform++``  (K,1) for all layers   K                      0.0
``average``             1/K, fixed             0                      –
======================  =====================  =====================  ==================

Low-rank sources (LoRA and its kin) have a site per layer and linear module, and D is then that
module's output width (:mod:`mtl.compose.low_rank`).

No constraint, no bias, no activation. Each entry starts as N(init_scale/K, init_std). Dropout acts
on omega itself: one mask per site and optimiser step, the same for all rows and tokens
(Frohmann et al. 2024, arXiv:2310.01217).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mtl.compose.composition import Composition
from mtl.compose.groups import check_gate, prepare
from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.lazy import later
from mtl.zoo.composition import NORMALISE


@dataclass(frozen=True)
class ScaLearnSettings:
    """Settings of the ScaLearn family.

    Attributes:
        per: ``dim`` for an omega per source and dimension, ``source`` for a scalar per source.
        share_layers: one omega for all layers (the ++ forms) instead of one per layer.
        layer_groups: one omega for each of so many equal runs of layers; 0 leaves it to
            ``share_layers``.
        learn: False keeps omega at its start, and only the head learns.
        init_scale: mean of omega at the start, times K.
        init_std: standard deviation at the start.
        dropout: probability of dropping an entry of omega while training.
        normalise: ``none``; ``mean`` divides omega by its sum over the sources, ``softmax`` takes
            the softmax over them (the paper's ablations, there without dropout).
        regularise: weight λ of ``λ/K · Σ_sites Σ_k (1 − mean_d omega_kd)²``, which pulls every
            source's mean scale to 1 (an option of CPJKU/ScaLearn). An omega that sites share
            counts once, by its mean like the others (a reference takes its sum over d).
        gate: a column of the data, such as ``user``: K gates for every group of rows with one
            value of it (:mod:`mtl.compose.groups`); empty for none.
        gate_std: how far a group's gates stray from the pooled 1 a priori.
        gate_rate: learning rate of the gates, as a multiple of the run's; 0: the usual one, 10.
        groups, grouping: recorded by a run with a gate: the groups with their training rows, and a
            hash of which row is in which.
    """

    LATER: ClassVar = ("gate", "gate_std", "gate_rate", "groups", "grouping")

    per: str = "dim"
    share_layers: bool = False
    layer_groups: int = 0
    learn: bool = True
    init_scale: float = 2.0
    init_std: float = 1e-3
    dropout: float = 0.3
    normalise: str = "none"
    regularise: float = 0.0
    gate: str = ""
    gate_std: float = 1.0
    gate_rate: float = 0.0
    groups: str = ""
    grouping: str = ""

    def __post_init__(self) -> None:
        if self.per not in {"dim", "source"}:
            raise RequestError(f"per={self.per!r} must be 'dim' or 'source'.")
        if self.normalise not in NORMALISE:
            raise RequestError(
                f"normalise={self.normalise!r} must be one of {', '.join(NORMALISE)}."
            )
        if not 0 <= self.dropout < 1:
            raise RequestError(f"dropout={self.dropout} must be at least 0 and below 1.")
        if self.init_std < 0:
            raise RequestError(f"init_std={self.init_std} must not be negative.")
        if self.regularise < 0:
            raise RequestError(f"regularise={self.regularise} must not be negative.")
        if self.layer_groups < 0 or (self.share_layers and self.layer_groups > 1):
            raise RequestError(
                f"layer_groups={self.layer_groups} must be at least 0, and with share_layers=true "
                "(the ++ forms) there is one group only."
            )
        check_gate(self.gate, self.gate_std, self.gate_rate, self.groups, self.grouping)


_CITE = "Frohmann et al. 2024, ScaLearn, arXiv:2310.01217"


def _composition(name: str, summary: str, **defaults: Any) -> Composition:
    return Composition(
        name,
        ScaLearnSettings,
        defaults,
        later("mtl.compose.modules.scalearn:attach"),
        later("mtl.compose.modules.scalearn:shares"),
        summary,
        _CITE,
        training=Training(
            "CPJKU/ScaLearn, src/scripts/scalearn",
            {"lr": 6e-3, "epochs": 30, "patience": "30 epochs"},
        ),
        prepare=prepare,
    )


SCALEARN = _composition("scalearn", "a learned scale per source, dimension and layer")
SCALEARN_UNIFORM = _composition(
    "scalearn-uniform", "a learned scale per source and layer", per="source"
)
SCALEARN_PP = _composition(
    "scalearn++", "a learned scale per source and dimension, for all layers", share_layers=True
)
SCALEARN_UNIFORM_PP = _composition(
    "scalearn-uniform++",
    "a learned scale per source, for all layers",
    per="source",
    share_layers=True,
    dropout=0.0,
)
AVERAGE = _composition(
    "average",
    "the mean of the sources' outputs; only the head learns",
    per="source",
    share_layers=True,
    learn=False,
    init_scale=1.0,
    init_std=0.0,
    dropout=0.0,
)
