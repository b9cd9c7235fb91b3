"""Low-rank adapters that are trained: a pair of factors per linear module, whatever trained them.

With x the input of a linear module: ``delta(x) = up · (down · x)``, down (R,in), up (out,R), any
scale folded into up. LoRA, SoRA, AdaLoRA and VeRA all end as this, so they are loaded by one hook
per site, need no library to be used, and compose with each other where their modules agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.linear import LINEARS, module_names
from mtl.errors import RequestError
from mtl.lazy import later

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.methods.source import PlainSource


@dataclass(frozen=True)
class Factors:
    """The delta of one site: down (R,in), up (out,R), scale included. R may be 0."""

    down: Tensor
    up: Tensor

    def source(self) -> PlainSource:
        """As compositions see it: linear features ``down · x`` of R dimensions."""
        from mtl.methods.source import PlainSource

        rank, width = self.down.shape[0], self.up.shape[0]
        return PlainSource(
            down=self.down,
            down_bias=self.down.new_zeros(rank),
            activation="linear",
            up_weight=self.up,
            up_bias=self.up.new_zeros(width),
        )


def placement(settings: Any, hidden_size: int) -> dict[str, Any]:
    """The signature of low-rank adapters: sources mix where their modules agree."""
    return {"modules": settings.modules}


def canonical(settings: Any, known: Sequence[str] = LINEARS) -> None:
    """Give ``settings.modules`` its one spelling (frozen settings, in ``__post_init__``).

    Raises:
        RequestError: see :func:`mtl.backbone.linear.module_names`.
    """
    object.__setattr__(settings, "modules", ",".join(module_names(settings.modules, known)))


def check_rank(rank: int, alpha: float = 1.0, dropout: float = 0.0) -> None:
    """Raises RequestError where one of the three is none."""
    if rank < 1:
        raise RequestError(f"rank={rank} must be at least 1.")
    if not alpha > 0:
        raise RequestError(f"alpha={alpha} must be above 0.")
    if not 0 <= dropout < 1:
        raise RequestError(f"dropout={dropout} must be at least 0 and below 1.")


_blank = later("mtl.methods.modules.low_rank:blank")
_add_source = later("mtl.methods.modules.low_rank:add_source")

Read = Callable[[Any, Any, Path], Mapping[str, Factors]]
"""(encoder, settings, folder) → the stored factors by site."""


def source_loader(read: Read) -> Callable[[Any, Any, str, Path | None], None]:
    """``Method.load_source`` of a low-rank method: its settings have ``modules`` and ``rank``."""

    def load_source(encoder: Any, settings: Any, name: str, folder: Path | None) -> None:
        factors = read(encoder, settings, folder) if folder else _blank(encoder, settings)
        _add_source(encoder, name, factors)

    return load_source
