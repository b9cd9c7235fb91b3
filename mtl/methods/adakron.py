"""AdaKron: bottleneck features as a Kronecker product of two small projections."""

from __future__ import annotations

from dataclasses import dataclass

from mtl.engine.settings import Training
from mtl.errors import RequestError, unknown
from mtl.lazy import later
from mtl.methods.core import core_method
from mtl.methods.placement import ALL_PLACEMENTS

FACTOR = 4
"""Width of the outer factor u; fixed in the reference."""


@dataclass(frozen=True)
class AdaKronSettings:
    """``u = D_2 z``, ``v = D_1 z``, out = ``U·GELU(u ⊗ v) + b`` per site.

    D_2 maps D → 4, D_1 maps D → R/4, both with bias; ``(u ⊗ v)[i·R/4 + j] = u_i v_j`` per token;
    GELU is the exact one; U is (D,R). Weights start as N(0, 0.02), U included; biases at zero.
    L·(D·R/4 + R/4 + 4·D + 4 + R·D + D) parameters: 599,232 on BERT-base at R = 48.

    Attributes:
        bottleneck: R, a multiple of 4.
        placement: ``pfeiffer``, ``houlsby``, ``parallel``, or ``paper``: in the FFN block, before
            its dropout.
    """

    bottleneck: int = 48
    placement: str = "pfeiffer"

    def __post_init__(self) -> None:
        check_bottleneck(self.bottleneck)
        if self.placement not in ALL_PLACEMENTS:
            raise unknown("placement", self.placement, ALL_PLACEMENTS)


def check_bottleneck(bottleneck: int) -> None:
    """Refuse an R that is no product of 4 and something.

    Raises:
        RequestError: says the nearest that are.
    """
    if bottleneck < FACTOR or bottleneck % FACTOR:
        low = max(FACTOR, bottleneck // FACTOR * FACTOR)
        raise RequestError(
            f"bottleneck={bottleneck} must be a multiple of {FACTOR}, because the features are a "
            f"product of {FACTOR} and R/{FACTOR} numbers; the nearest are {low} and {low + FACTOR}."
        )


TRAINING = Training(
    "DetectiveMB/AdaKron, Run_RoBERTa",
    {
        "lr": 3e-4,
        "epochs": 20,
        "batch_size": 64,
        "warmup": 0.06,
        "weight_decay": 0.1,
        "select": "metric",
        "patience": 0,
    },
)
"""RoBERTa-large's, of most tasks; AdaMix's scripts share them."""

METHOD = core_method(
    "adakron",
    AdaKronSettings,
    core="adakron",
    size=lambda settings, hidden_size: settings.bottleneck,
    build=later("mtl.methods.modules.adakron:build"),
    summary="bottleneck features as a Kronecker product of two small projections",
    citation="AdaKron, DetectiveMB/AdaKron (code)",
    training=TRAINING,
)
