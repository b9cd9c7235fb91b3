"""VeRA: two learned vectors per module around frozen random projections, through ``peft``.

``adapters`` has a config of this name, too, which trains two whole matrices instead
(docs/methods.md#the-library-underneath).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.lazy import later
from mtl.methods.low_rank import (
    canonical,
    check_rank,
    placement,
    source_loader,
)
from mtl.methods.method import Method
from mtl.methods.peft_files import (
    load_peft,
    read_factors,
)


@dataclass(frozen=True)
class VeRASettings:
    """``delta(x) = b ⊙ (B·(d ⊙ (A·dropout(x))))`` beside every chosen linear module.

    A (R,in) and B (out,R) are random, frozen and shared by all modules, cut to each module's
    shape; d (R,) starts at ``d_initial``, b (out,) at 0. R + out parameters per site: 43,008 on
    BERT-base at rank 1024.

    Attributes:
        rank: R; larger than LoRA's, since only vectors train.
        d_initial: start of d.
        dropout: on x, while training.
        projection_seed: A and B are drawn from it, whatever the run's seed.
        store_projection: whether A and B are stored; without, they are drawn again at loading.
        modules: of ``q``, ``k``, ``v``, ``attention``, ``intermediate``, ``output``, separated by
            commas, or ``all``.
    """

    rank: int = 256
    d_initial: float = 0.1
    dropout: float = 0.0
    projection_seed: int = 0
    store_projection: bool = True
    modules: str = "q,v"

    def __post_init__(self) -> None:
        check_rank(self.rank, dropout=self.dropout)
        canonical(self)
        if self.projection_seed < 0:
            raise RequestError(f"projection_seed={self.projection_seed} must not be negative.")


METHOD = Method(
    name="vera",
    settings=VeRASettings,
    summary="learned vectors around frozen random projections beside linear modules (peft)",
    citation="Kopiczko et al. 2024, arXiv:2310.11454",
    training=Training(
        "its paper's are not recorded here; public re-runs on RoBERTa-base train its vectors at "
        "1e-2, the head at 4e-3, which is for both here",
        {"lr": 4e-3, "epochs": 30, "batch_size": 64, "select": "metric", "patience": 0},
    ),
    attach=later("mtl.methods.modules.vera:attach"),
    load=partial(load_peft, later("mtl.methods.modules.vera:read")),
    placement=placement,
    composes="low_rank",
    load_source=source_loader(partial(read_factors, later("mtl.methods.modules.vera:read"))),
    weights=lambda settings: "peft",
    package="peft",
)
