"""AdaLoRA: a rank budget that is dealt out among the modules by importance, through ``peft``."""

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
class AdaLoRASettings:
    """``delta(x) = x·(A ⊙ e)^T·B^T · alpha/(R + 1e-5)`` beside every chosen linear module.

    A (R,in) and B (out,R) start as N(0, 0.02²), e (R,1) at 0. The loss gets ``gamma`` times the
    mean of ``‖A·A^T − I‖`` and ``‖B^T·B − I‖`` over all matrices (norms not squared). After step k
    of T the importance of every triplet (row of A, entry of e, column of B) is updated, and the
    least important e are set to zero so that a budget of ranks is left: all of them until step
    ``initial_warmup``, then falling as a cube to :attr:`target` per module at step
    T − ``final_warmup``, fixed from there on (Zhang et al. 2023).

    A state that is selected before T − ``final_warmup``, or a run that patience ends before, may
    use more ranks than the budget.

    Attributes:
        rank: R, ranks per module at the start.
        target_rank: mean ranks per module at the end; equal to ``rank``: nothing is masked. 0
            takes two thirds of ``rank``, rounded up: the paper starts at 1.5 times the target.
        alpha: see above.
        gamma: weight of the orthogonality term, 0 for none.
        initial_warmup, final_warmup: in steps; 0 for 10 % and 40 % of the planned steps.
        interval: steps between two masks while the budget falls.
        beta1, beta2: smoothing of importance and of its uncertainty.
        dropout: on x, while training.
        modules: of ``q``, ``k``, ``v``, ``attention``, ``intermediate``, ``output``, separated by
            commas, or ``all``.
    """

    rank: int = 12
    target_rank: int = 0
    alpha: float = 32.0
    gamma: float = 0.1
    initial_warmup: int = 0
    final_warmup: int = 0
    interval: int = 10
    beta1: float = 0.85
    beta2: float = 0.85
    dropout: float = 0.0
    modules: str = "all"

    def __post_init__(self) -> None:
        check_rank(self.rank, self.alpha, self.dropout)
        canonical(self)
        if not 0 <= self.target_rank <= self.rank:
            raise RequestError(
                f"target_rank={self.target_rank} must be from 1 to rank={self.rank}, the ranks per "
                "module at the start, or 0 for two thirds of them."
            )
        if self.gamma < 0:
            raise RequestError(f"gamma={self.gamma} must not be negative.")
        if self.initial_warmup < 0 or self.final_warmup < 0 or self.interval < 1:
            raise RequestError(
                f"initial_warmup={self.initial_warmup} and final_warmup={self.final_warmup} must "
                f"not be negative, interval={self.interval} must be at least 1."
            )
        for name in ("beta1", "beta2"):
            if not 0 < getattr(self, name) < 1:
                raise RequestError(f"{name}={getattr(self, name)} must be between 0 and 1.")

    @property
    def target(self) -> int:
        """Mean ranks per module at the end."""
        return self.target_rank or -(-2 * self.rank // 3)

    @property
    def scale(self) -> float:
        """alpha/(R + 1e-5), with the R of the start also where ranks were dropped."""
        return self.alpha / (self.rank + 1e-5)

    @property
    def allocates(self) -> bool:
        """Whether there is anything to deal out."""
        return self.target < self.rank


METHOD = Method(
    name="adalora",
    settings=AdaLoRASettings,
    summary="low-rank triplets whose number per module follows importance (peft)",
    citation="Zhang et al. 2023, arXiv:2303.10512",
    training=Training(
        "QingruZhang/AdaLoRA, NLU/scripts, of MRPC",
        {
            "lr": 1e-3,
            "epochs": 30,
            "batch_size": 32,
            "warmup": 0.1,
            "weight_decay": 0.01,
            "select": "metric",
            "patience": 0,
        },
    ),
    attach=later("mtl.methods.modules.adalora:attach"),
    load=partial(load_peft, later("mtl.methods.modules.adalora:read")),
    placement=placement,
    composes="low_rank",
    load_source=source_loader(partial(read_factors, later("mtl.methods.modules.adalora:read"))),
    weights=lambda settings: "peft",
    package="peft",
)
