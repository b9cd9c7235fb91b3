"""AdaLoRA: a rank budget that is dealt out among the modules by importance, through ``peft``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtl.backbone.linear import linear_paths, module_names, path_pattern
from mtl.engine import Group
from mtl.engine.settings import Training
from mtl.errors import RequestError, ZooError
from mtl.methods.low_rank import (
    Factors,
    canonical,
    check_rank,
    placement,
    source_loader,
)
from mtl.methods.method import Method, RunFacts
from mtl.methods.peft_files import (
    NAME,
    PREFIX,
    config_dict,
    load_peft,
    read_factors,
    read_peft,
    require_peft,
    save_peft,
    take,
)
from mtl.methods.tuned import Tuned


@dataclass(frozen=True)
class AdaLoRASettings:
    """``delta(x) = x·(A ⊙ e)^T·B^T · alpha/(R + 1e-5)`` beside every chosen linear module.

    A (R,in) and B (out,R) start as N(0, 0.02²), e (R,1) at 0. The loss gets ``gamma`` times the
    mean of ``‖A·A^T − I‖`` and ``‖B^T·B − I‖`` over all matrices (norms not squared). After step k
    of T the importance of every triplet (row of A, entry of e, column of B) is updated, and the
    least important e are set to zero so that a budget of ranks is left: all of them until step
    ``initial_warmup``, then falling as a cube to :attr:`target` per module at step
    T − ``final_warmup``, fixed from there on (specs/adapter_methods §5).

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


def warmups(settings: AdaLoRASettings, steps: int) -> tuple[int, int]:
    """Steps before the budget falls and after it has fallen, in a run of ``steps``.

    Raises:
        RequestError: no step is left between the two.
    """
    initial = settings.initial_warmup or int(0.1 * steps)
    final = settings.final_warmup or int(0.4 * steps)
    if settings.allocates and steps and steps <= initial + final:
        raise RequestError(
            f"AdaLoRA cannot lower its ranks from {settings.rank} to {settings.target}: the "
            f"run has {steps} steps, and initial_warmup={initial} with final_warmup={final} leave "
            "none between them. Train longer (epochs, max_steps), or lower the two (0 takes 10 % "
            "and 40 % of the run)."
        )
    return initial, final


def orthogonality(down: Sequence[Tensor], up: Sequence[Tensor]) -> Tensor:
    """Mean of ``‖A·A^T − I‖`` and ``‖B^T·B − I‖``, norms not squared, by one product per shape.

    Args:
        down: every A (R,in).
        up: every B (out,R).
    """
    rows: dict[Any, list[Tensor]] = {}
    for matrix in [*down, *(matrix.t() for matrix in up)]:
        rows.setdefault(matrix.shape, []).append(matrix)
    norms = []
    for shape, matrices in rows.items():
        stacked = torch.stack(matrices)
        unit = torch.eye(shape[0], dtype=stacked.dtype, device=stacked.device)
        norms.append((stacked @ stacked.mT - unit).flatten(1).norm(dim=1))
    return torch.cat(norms).mean()


def make_tuner(model: nn.Module, settings: AdaLoRASettings, pattern: str, steps: int) -> Any:
    """``peft``'s tuner over the linears that ``pattern`` matches, injected into ``model``.

    Args:
        steps: T; 0 where nothing will train.

    Raises:
        RequestError: see :func:`warmups`, or ``peft`` is not installed.
    """
    require_peft("adalora")
    from peft import AdaLoraConfig
    from peft.tuners.adalora.model import AdaLoraModel

    initial, final = warmups(settings, steps)
    allocates = settings.allocates and steps > 0
    config = AdaLoraConfig(
        init_r=settings.rank,
        target_r=settings.target,
        # peft wants a schedule also where nothing is dealt out
        tinit=initial if allocates else 0,
        tfinal=final if allocates else 0,
        total_step=max(steps, 1),
        deltaT=settings.interval,
        beta1=settings.beta1,
        beta2=settings.beta2,
        orth_reg_weight=settings.gamma,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=pattern,
    )
    return AdaLoraModel(model, config, NAME)


class Allocation:
    """``peft``'s allocator between optimiser steps, and what a resume point must know of it."""

    def __init__(self, tuner: Any) -> None:
        self.tuner = tuner
        self._config = tuner.peft_config[NAME]

    def after_step(self, step: int) -> None:
        """Update importance and mask, after the 0-based optimiser step ``step``."""
        self.tuner.update_and_allocate(step)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Smoothed importance and uncertainty by tensor, and the final pattern of ranks."""
        allocator = self.tuner.rankallocator
        tensors = {f"importance.{key}": value for key, value in allocator.exp_avg_ipt.items()}
        tensors |= {f"uncertainty.{key}": value for key, value in allocator.exp_avg_unc.items()}
        return tensors, {"rank_pattern": self._config.rank_pattern}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` returned."""
        allocator = self.tuner.rankallocator
        allocator.reset_ipt()
        places = {key: value.device for key, value in self.tuner.model.named_parameters()}
        kinds = {"importance": allocator.exp_avg_ipt, "uncertainty": allocator.exp_avg_unc}
        for name, tensor in tensors.items():
            kind, _, key = name.partition(".")
            kinds[kind][key] = tensor.to(places[key])
            # peft makes all three where this one is missing
            allocator.ipt[key] = torch.zeros_like(kinds[kind][key])
        self._config.rank_pattern = values.get("rank_pattern")


def attach(encoder: Any, settings: AdaLoRASettings, name: str, request: RunFacts) -> Tuned:
    """Inject ``peft``'s SVD linears, trainable and active.

    Raises:
        RequestError: ``peft`` is not installed, or the run is too short for its warm-ups.
    """
    paths = linear_paths(encoder, module_names(settings.modules))
    tuner = make_tuner(encoder, settings, path_pattern(list(paths.values())), request.steps)
    layers = {path: encoder.get_submodule(path) for path in paths.values()}
    own = {
        f"{site}.{key}": getattr(layers[path], f"lora_{key}")[NAME]
        for site, path in paths.items()
        for key in "AEB"
    }
    for parameter in own.values():
        parameter.requires_grad_(True)

    def penalty() -> Mapping[str, Tensor]:
        down = [value for key, value in own.items() if key.endswith("A")]
        up = [value for key, value in own.items() if key.endswith("B")]
        return {"orthogonality": settings.gamma * orthogonality(down, up)}

    drop = [False]

    def finish() -> None:
        drop[0] = True

    def save(folder: Path, base: str) -> None:
        tensors: dict[str, Tensor] = {}
        pattern: dict[str, list[bool]] = {}
        for site, path in paths.items():
            down, values, up = (own[f"{site}.{key}"].detach() for key in "AEB")
            kept = (values != 0).squeeze(1) if drop[0] else torch.ones_like(values[:, 0]).bool()
            tensors[f"{PREFIX}{path}.lora_A"] = down[kept].contiguous()
            tensors[f"{PREFIX}{path}.lora_E"] = values[kept].contiguous()
            tensors[f"{PREFIX}{path}.lora_B"] = up[:, kept].contiguous()
            pattern[f"{path}.lora_E"] = kept.tolist()
        config = config_dict(tuner.peft_config[NAME])
        config["rank_pattern"] = pattern if drop[0] else None
        save_peft(folder, config, tensors, base)

    after: tuple[Callable[[int], None], ...] = ()
    state = load_state = None
    if settings.allocates and request.steps:
        allocation = Allocation(tuner)
        after = (allocation.after_step,)
        state, load_state = allocation.state, allocation.load_state
    return Tuned(
        [Group("method", own)],
        save,
        penalties=(penalty,) if settings.gamma else (),
        after=after,
        state=state,
        load_state=load_state,
        finish=finish,
        merged=sum(value.numel() for key, value in own.items() if key[-1] != "E"),  # e enters A
    )


def _read(
    encoder: Any, settings: AdaLoRASettings, folder: Path
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Factors]]:
    expected = {"init_r": settings.rank, "lora_alpha": settings.alpha}
    config, stored = read_peft(folder, "ADALORA", expected)
    found = {}
    for site, path in linear_paths(encoder, module_names(settings.modules)).items():
        down, values, up = (take(folder, stored, f"{PREFIX}{path}.lora_{key}") for key in "AEB")
        if values.shape != (down.shape[0], 1):
            raise ZooError(
                f"Cannot load the adapter in {folder}: lora_E of {path} has shape "
                f"{tuple(values.shape)}; expected ({down.shape[0]}, 1)."
            )
        found[site] = Factors(down * values, up * settings.scale)
    return config, stored, found


METHOD = Method(
    name="adalora",
    settings=AdaLoRASettings,
    summary="low-rank triplets whose number per module follows importance (peft)",
    citation="Zhang et al. 2023, arXiv:2303.10512; spec methods §5",
    training=Training(
        "spec methods §5.4, of MRPC",
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
    attach=attach,
    load=partial(load_peft, _read),
    placement=placement,
    composes="low_rank",
    load_source=source_loader(partial(read_factors, _read)),
    weights=lambda settings: "peft",
    package="peft",
)
