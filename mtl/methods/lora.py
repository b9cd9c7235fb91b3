"""LoRA: a low-rank product beside frozen linear modules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl.backbone.linear import linear_sites, module_names
from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.methods.library import library_method, load_library
from mtl.methods.low_rank import Factors, canonical, check_rank, placement, source_loader
from mtl.methods.method import HeadSettings


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


def _config(settings: LoRASettings, hidden_size: int) -> Any:
    from adapters import LoRAConfig

    modules = module_names(settings.modules)
    heads = [name for name in ("q", "k", "v") if name in modules]
    return LoRAConfig(
        selfattn_lora=bool(heads),
        intermediate_lora="intermediate" in modules,
        output_lora="output" in modules,
        attn_matrices=heads,
        r=settings.rank,
        alpha=settings.alpha,
        dropout=settings.dropout,
    )


def read(encoder: Any, settings: LoRASettings, folder: Path) -> dict[str, Factors]:
    """The stored factors by site; leaves nothing in the encoder.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    name = "reading"
    load_library(_config, encoder, settings, name, folder)
    found = {}
    for site, linear in linear_sites(encoder, module_names(settings.modules)).items():
        lora: Any = linear.loras[name]  # type: ignore[index]
        down, up = lora.lora_A.detach().clone(), lora.lora_B.detach() * lora.scaling
        found[site] = Factors(down, up)
    encoder.delete_adapter(name)
    return found


METHOD = library_method(
    "lora",
    LoRASettings,
    _config,
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
