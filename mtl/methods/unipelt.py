"""UniPELT: gated prefix, bottleneck adapter and LoRA together (APL), or without LoRA (AP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.lazy import later
from mtl.methods.library import library_method
from mtl.methods.pfeiffer import PfeifferSettings, bottleneck_config
from mtl.methods.prefix import check_length


@dataclass(frozen=True)
class UniPELTSettings:
    """Each part times its gate, ``mean_t sigmoid(w·x_t + b)``, one number per example and module.

    Attributes:
        lora: whether LoRA on queries and values is one of the parts.
        prefix_length: of the flat prefix.
        reduction_factor, bottleneck: of the bottleneck adapter, pfeiffer placement.
        rank: of LoRA; its alpha has no effect, the gate stands in its place, as in its code.
        gate_padding: whether the tokens of the mean are padding, too, as in ``adapters``, where
            the answer to a text depends on how long those beside it are. The methods' own: false.
    """

    LATER: ClassVar[tuple[str, ...]] = ("gate_padding",)
    """Settings younger than the first entries of zoos, which have the default."""

    lora: bool = True
    prefix_length: int = 10
    reduction_factor: float = 16.0
    bottleneck: int = 0
    rank: int = 8
    gate_padding: bool = True

    def __post_init__(self) -> None:
        check_length(self.prefix_length)
        PfeifferSettings(self.reduction_factor, self.bottleneck)
        if self.rank < 1:
            raise RequestError(f"rank={self.rank} must be at least 1.")


def _config(settings: UniPELTSettings, hidden_size: int) -> Any:
    from adapters import ConfigUnion, LoRAConfig, PrefixTuningConfig

    adapter = PfeifferSettings(settings.reduction_factor, settings.bottleneck)
    parts = [
        PrefixTuningConfig(flat=True, prefix_length=settings.prefix_length, use_gating=True),
        bottleneck_config(adapter, hidden_size).replace(use_gating=True),
    ]
    if settings.lora:
        parts.append(LoRAConfig(r=settings.rank, alpha=2, use_gating=True))
    return ConfigUnion(*parts)


def _method(name: str, summary: str, **defaults: Any) -> Any:
    return library_method(
        name,
        UniPELTSettings,
        _config,
        summary=summary,
        citation="Mao et al. 2022, arXiv:2110.07577",
        training=Training(
            "its paper's are not recorded here; the rate of public re-runs of its comparison",
            {"lr": 5e-4, "epochs": 30, "patience": "5 epochs"},
        ),
        refusal="its parts are gated by the input, and one of them acts inside the attention",
        defaults={**defaults, "gate_padding": False},
        ready=later("mtl.methods.modules.unipelt:ready"),
    )


AP = _method("unipelt-ap", "gated prefix and bottleneck adapter", lora=False)
APL = _method("unipelt-apl", "gated prefix, bottleneck adapter and LoRA", lora=True)
