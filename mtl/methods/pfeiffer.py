"""Bottleneck adapters as Pfeiffer et al. place them: the default source of stage two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtl.engine.settings import Training
from mtl.errors import RequestError, unknown
from mtl.methods.library import library_method
from mtl.methods.method import HeadSettings, Method
from mtl.methods.placement import PLACEMENTS, signature_of, stock_config

ACTIVATIONS = ("relu", "gelu", "gelu_new", "gelu_orig", "swish", "tanh", "leakyrelu")


@dataclass(frozen=True)
class PfeifferSettings(HeadSettings):
    """A bottleneck adapter ``u = U·act(D·z + c) + b`` per site; z and the residual by placement.

    With D hidden and R bottleneck: D is (R,D), c (R,), U (D,R), b (D,); weights start as
    N(0, 0.02), biases at zero. L·(2·D·R + R + D) parameters in the pfeiffer placement
    (Pfeiffer et al. 2021).

    Attributes:
        reduction_factor: R = D // reduction_factor.
        bottleneck: R itself, 0 to go by the reduction factor.
        activation: act.
        placement: ``pfeiffer``, ``houlsby`` or ``parallel``.
        dropout: on u, while training.
        train_head: see :class:`~mtl.methods.method.HeadSettings`.
    """

    reduction_factor: float = 16.0
    bottleneck: int = 0
    activation: str = "relu"
    placement: str = "pfeiffer"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.reduction_factor > 0:
            raise RequestError(f"reduction_factor={self.reduction_factor} must be above 0.")
        if self.bottleneck < 0:
            raise RequestError(f"bottleneck={self.bottleneck} must not be negative.")
        if self.activation not in ACTIVATIONS:
            raise unknown("activation", self.activation, ACTIVATIONS)
        if self.placement not in PLACEMENTS:
            raise unknown("placement", self.placement, PLACEMENTS)
        if not 0 <= self.dropout < 1:
            raise RequestError(f"dropout={self.dropout} must be at least 0 and below 1.")


def bottleneck_size(reduction_factor: float, bottleneck: int, hidden_size: int) -> int:
    """R for a hidden size D.

    Raises:
        RequestError: the factor leaves no bottleneck unit.
    """
    size = bottleneck or hidden_size // reduction_factor
    if not size < float("inf"):
        raise RequestError(f"reduction_factor={reduction_factor} is too small to divide by.")
    size = int(size)
    if size < 1:
        raise RequestError(
            f"reduction_factor={reduction_factor} leaves no bottleneck at hidden size "
            f"{hidden_size}; use at most {hidden_size}, or set bottleneck=R."
        )
    return size


def exact_reduction_factor(bottleneck: int, hidden_size: int) -> float:
    """The factor from which ``adapters`` computes exactly R.

    It takes ``int(D // factor)``; ``D / R`` lands one short for 42 % of all pairs.
    """
    return hidden_size / (bottleneck + 0.5)


def bottleneck_config(settings: PfeifferSettings, hidden_size: int) -> Any:
    size = bottleneck_size(settings.reduction_factor, settings.bottleneck, hidden_size)
    return stock_config(
        settings.placement,
        reduction_factor=exact_reduction_factor(size, hidden_size),
        non_linearity=settings.activation,
        dropout=settings.dropout,
    )


def _placement(settings: PfeifferSettings, hidden_size: int) -> dict[str, Any]:
    bottleneck_size(settings.reduction_factor, settings.bottleneck, hidden_size)
    return signature_of(settings.placement)


def _method(name: str, summary: str, citation: str, source: str = "", **defaults: Any) -> Method:
    return library_method(
        name,
        PfeifferSettings,
        bottleneck_config,
        summary=summary,
        citation=citation,
        placement=_placement,
        composes="bottleneck",
        defaults=defaults,
        training=Training(
            f"{source}CPJKU/ScaLearn, src/scripts/st-a",
            {"lr": 3e-4, "epochs": 30, "patience": "5 epochs"},
        ),
    )


METHOD = _method(
    "pfeiffer",
    "bottleneck adapter after the FFN, one per layer",
    "Pfeiffer et al. 2021, AdapterFusion, arXiv:2005.00247",
)
HOULSBY = _method(
    "houlsby",
    "bottleneck adapters after attention and FFN, two per layer",
    "Houlsby et al. 2019, arXiv:1902.00751",
    "its paper's are not recorded here; of pfeiffer adapters, ",
    placement="houlsby",
    activation="swish",
)
PARALLEL = _method(
    "parallel",
    "bottleneck adapter beside the FFN, scaled by 4",
    "He et al. 2022, arXiv:2110.04366",
    "its paper's are not recorded here; of pfeiffer adapters, ",
    placement="parallel",
)
