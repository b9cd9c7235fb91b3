"""LoRA: a low-rank product beside frozen linear modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.arch import arch_of
from mtl.backbone.linear import linear_sites, lora_views, module_names
from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.methods.library import activate, attach_library, load_library
from mtl.methods.low_rank import Factors, canonical, check_rank, placement, source_loader
from mtl.methods.method import HeadSettings, Method, RunFacts

if TYPE_CHECKING:
    from mtl.methods.tuned import Tuned


@dataclass(frozen=True)
class LoRASettings(HeadSettings):
    """``delta(x) = (alpha/R) · B·A·dropout(x)`` beside every chosen linear module.

    A is (R,in), kaiming-uniform (a = √5); B is (out,R), zero. R·(in + out) parameters per site:
    294,912 on BERT-base at the defaults (Hu et al. 2022).

    Attributes:
        rank: R.
        alpha: the scale times R; 16 as in the paper's RoBERTa runs and SoRA's LoRA baseline
            (``adapters`` would take 8).
        dropout: on x, while training.
        modules: of ``q``, ``k``, ``v``, ``intermediate``, ``output``, separated by commas, or
            ``all``. The attention's output projection is no site of ``adapters``' LoRA.
        train_head: see :class:`~mtl.methods.method.HeadSettings`.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    modules: str = "q,v"

    def __post_init__(self) -> None:
        check_rank(self.rank, self.alpha, self.dropout)
        if "attention" in self.modules:
            raise RequestError(
                f"modules={self.modules!r}: the LoRA of adapters has no site at the attention's "
                f"output projection. Choose from {', '.join(KNOWN)}; sora and adalora have one."
            )
        canonical(self, KNOWN)


KNOWN = ("q", "k", "v", "intermediate", "output")


def stock_lora(encoder: Any, modules: Sequence[str], **values: Any) -> Any:
    """The LoRA config of ``adapters`` that is at our ``modules`` of this encoder.

    Args:
        values: further fields, ``r`` and ``alpha`` among them.
    """
    return lora_config(arch_of(encoder.config).lora_names, modules, **values)


def lora_config(names: Mapping[str, str], modules: Sequence[str], **values: Any) -> Any:
    """The same by the ``lora_names`` of the encoder's type."""
    from adapters import LoRAConfig

    theirs = [names.get(module, module) for module in modules]
    heads = [name for name in ("q", "k", "v") if name in theirs]
    return LoRAConfig(
        selfattn_lora=bool(heads),
        intermediate_lora="intermediate" in theirs,
        output_lora="output" in theirs,
        attn_matrices=heads,
        **values,
    )


def _config(encoder: Any, settings: LoRASettings, hidden_size: int) -> Any:
    return stock_lora(
        encoder,
        module_names(settings.modules),
        r=settings.rank,
        alpha=settings.alpha,
        dropout=settings.dropout,
    )


def attach(encoder: Any, settings: LoRASettings, name: str, facts: RunFacts) -> Tuned:
    """Add a new LoRA, trainable and active."""
    return attach_library(partial(_config, encoder), encoder, settings, name, facts)


def load(encoder: Any, settings: LoRASettings, name: str, folder: Path) -> Tuned:
    """Add the stored LoRA, frozen, not active.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    return load_library(partial(_config, encoder), encoder, settings, name, folder)


def read(encoder: Any, settings: LoRASettings, folder: Path) -> dict[str, Factors]:
    """The stored factors by site; leaves nothing in the encoder.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    name = "reading"
    load(encoder, settings, name, folder)
    found = {}
    for site, linear in linear_sites(encoder, module_names(settings.modules)).items():
        down, up, scale = lora_views(linear, name)
        found[site] = Factors(down.detach().clone(), up.detach() * scale)
    encoder.delete_adapter(name)
    return found


METHOD = Method(
    name="lora",
    settings=LoRASettings,
    attach=attach,
    load=load,
    activate=activate,
    summary="a low-rank product beside linear modules",
    citation="Hu et al. 2022, arXiv:2106.09685",
    training=Training(
        "TsinghuaC3I/SoRA, issue 4, its LoRA baseline",
        {
            "lr": 1e-4,
            "epochs": 20,
            "batch_size": 8,
            "warmup": 0.06,
            "weight_decay": 0.1,
            "clip": 0.1,
            "select": "metric",
            "patience": 0,
        },
    ),
    placement=placement,
    composes="low_rank",
    load_source=source_loader(read),
)
