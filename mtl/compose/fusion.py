"""AdapterFusion: attention over the outputs of frozen source adapters, in its low-rank form.

At every site, with z the sources' common input and ``u_k = U_k a_k + b_k`` (a_k the features)::

    q       = W_Q z + b_Q
    score_k = q · (W_K u_k + b_K)
    p       = softmax_k( dropout(score) )
    mixture = W_V Σ_k p_k u_k
    out     = LN( mixture + h + x )

(Pfeiffer et al. 2021, arXiv:2005.00247). No scaling by sqrt(D), one
head, dropout on the raw scores; the b_K term is kept, because with dropout on scores it does not
cancel in the softmax.

Computed without any (B,T,K,D) tensor: with the sources' U stacked in ``up`` (S,D), S = Σ R_k::

    kmap = up W_K^T  (S,D)      score   = segment_sum_k( (q kmap^T) ⊙ a ) + q · (W_K b_k + b_K)
    vmap = up W_V^T  (S,D)      mixture = (p expanded to S ⊙ a) vmap + p (b W_V^T)

which is the same function: W_K and W_V act once per source unit instead of once per token and
source. The parameters are those of stock BertFusion, by the same names.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtl.compose.composition import Composition
from mtl.engine.settings import Training
from mtl.errors import RequestError, unknown
from mtl.lazy import later

REGULARISERS = {"paper": 0.01, "reference-fp16": 0.01 / 65536, "0": 0.0}
"""Weight of Σ_l ||I − W_V||². The reference adds it behind the loss scaler, which divides it by
2^16: ``reference-fp16`` is what its published runs trained with."""


@dataclass(frozen=True)
class FusionSettings:
    """Settings of AdapterFusion.

    Attributes:
        dropout: on the raw scores, while training.
        fusion_reg: ``paper`` (0.01), ``reference-fp16`` (0.01 / 65536), or ``0``.
    """

    dropout: float = 0.1
    fusion_reg: str = "paper"

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise RequestError(f"dropout={self.dropout} must be at least 0 and below 1.")
        if self.fusion_reg not in REGULARISERS:
            raise unknown("fusion_reg", self.fusion_reg, REGULARISERS)


FUSION = Composition(
    name="fusion",
    settings=FusionSettings,
    defaults={},
    attach=later("mtl.compose.modules.fusion:attach"),
    shares=later("mtl.compose.modules.fusion:shares"),
    summary="attention over the sources' outputs, per token and layer (AdapterFusion)",
    citation="Pfeiffer et al. 2021, AdapterFusion, arXiv:2005.00247",
    training=Training(
        "CPJKU/ScaLearn, src/scripts/fusion", {"lr": 5e-05, "epochs": 30, "patience": "5 epochs"}
    ),
    kinds=("bottleneck",),
    refusal=(
        "AdapterFusion attends over the outputs of adapters that share one query per layer, the "
        "adapters' input; low-rank sources have none, they are parts of linear modules. The "
        "ScaLearn family composes them: --method scalearn"
    ),
)
