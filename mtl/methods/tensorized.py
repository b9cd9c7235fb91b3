"""Tensorized adapters: the projections of a bottleneck as low-rank tensors (CP, Tucker, TT, TR)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mtl.engine.settings import Training
from mtl.errors import RequestError, unknown
from mtl.lazy import later
from mtl.methods.core import core_config, core_method
from mtl.methods.placement import ALL_PLACEMENTS

if TYPE_CHECKING:
    from mtl.backbone.injection import CoreConfig

FORMATS = ("cp", "tucker", "tt", "tr")


@dataclass(frozen=True)
class TensorizedSettings:
    """``relu(x W_d) W_u`` per site, no biases; W_d (D,R) and W_u (R,D) in a tensor format.

    With D = a·b, W_d is a tensor of modes (a, b, R) and W_u of (R, a, b); see
    :mod:`mtl.methods.modules.thin` for the formats. Every tensor starts uniform in [-0.1, 0.1].

    Attributes:
        format: ``cp``, ``tucker``, ``tt`` or ``tr``; the method's name says which.
        rank: R of the format, for every mode.
        bottleneck: the adapter's R (64 in the paper).
        bottleneck_form: False is the form without a bottleneck, ``relu(x W)`` with W (D,D) of modes
            (a, b, a, b).
        placement: ``pfeiffer``, ``houlsby`` (the paper's), ``parallel`` or ``paper``.
        train_layer_norm: train all LayerNorms of the base, too, as the paper does. The entry then
            changes the base, and composes alone.
    """

    format: str = "tt"
    rank: int = 2
    bottleneck: int = 64
    bottleneck_form: bool = True
    placement: str = "pfeiffer"
    train_layer_norm: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise unknown("format", self.format, FORMATS)
        for name in ("rank", "bottleneck"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.placement not in ALL_PLACEMENTS:
            raise unknown("placement", self.placement, ALL_PLACEMENTS)


def factor_pair(size: int) -> tuple[int, int] | None:
    """The two factors of ``size`` that are closest to each other, smaller first; None for a prime.

    768 is (24, 32), as in the reference.
    """
    low = int(size**0.5)
    while low > 1 and size % low:
        low -= 1
    return (low, size // low) if low > 1 else None


def modes(hidden_size: int) -> tuple[int, int]:
    """a and b with a·b = D.

    Raises:
        RequestError: D is a prime, so there is nothing to factor.
    """
    pair = factor_pair(hidden_size)
    if pair is None:
        raise RequestError(
            f"Tensorized adapters need a hidden size that is a product; {hidden_size} is a prime."
        )
    return pair


def _size(format: str, settings: TensorizedSettings, hidden_size: int) -> int:
    """R of the adapter.

    Raises:
        RequestError: another format than the method's name says; see :func:`modes`.
    """
    if settings.format != format:
        raise RequestError(
            f"format={settings.format} is no setting of tensorized-{format}; use --method "
            f"tensorized-{settings.format}."
        )
    modes(hidden_size)
    return settings.bottleneck if settings.bottleneck_form else hidden_size


def config_of(format: str, settings: TensorizedSettings, hidden_size: int) -> CoreConfig:
    return core_config("tensorized", settings, _size(format, settings, hidden_size), hidden_size)


def _method(format: str, spoken: str) -> Any:
    return core_method(
        f"tensorized-{format}",
        TensorizedSettings,
        core="tensorized",
        size=partial(_size, format),
        build=later("mtl.methods.modules.tensorized:build"),
        attach=partial(later("mtl.methods.modules.tensorized:attach"), format),
        load=partial(later("mtl.methods.modules.tensorized:load"), format),
        summary=f"bottleneck projections in {spoken} format, thin products",
        citation="tensorized/tensorized_adapters (code)",
        training=Training(
            "tensorized/tensorized_adapters, README",
            {"lr": 0.0002, "epochs": 20, "batch_size": 32, "select": "last", "patience": 0},
        ),
        defaults={"format": format},
        weights=lambda settings: "delta" if settings.train_layer_norm else "adapters",
    )


CP = _method("cp", "CP")
TUCKER = _method("tucker", "Tucker")
TT = _method("tt", "tensor-train")
TR = _method("tr", "tensor-ring")
