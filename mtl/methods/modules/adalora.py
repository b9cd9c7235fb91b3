"""The torch side of :mod:`mtl.methods.adalora`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtl.backbone.linear import module_names, path_pattern, split_wholes, whole_paths
from mtl.engine import Group
from mtl.errors import RequestError, ZooError
from mtl.methods.low_rank import (
    Factors,
)
from mtl.methods.peft_files import (
    NAME,
    PREFIX,
    config_dict,
    read_peft,
    require_peft,
    save_peft,
    take,
)
from mtl.methods.tuned import Tuned

if TYPE_CHECKING:
    from mtl.methods.adalora import AdaLoRASettings
    from mtl.methods.method import RunFacts


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
    require_peft("Method 'adalora' trains")
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
    paths = whole_paths(encoder, module_names(settings.modules), "adalora")
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


def read(
    encoder: Any, settings: AdaLoRASettings, folder: Path
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Factors]]:
    expected = {"init_r": settings.rank, "lora_alpha": settings.alpha}
    config, stored = read_peft(folder, "ADALORA", expected)
    modules = module_names(settings.modules)
    found = {}
    for site, path in whole_paths(encoder, modules, "adalora").items():
        down, values, up = (take(folder, stored, f"{PREFIX}{path}.lora_{key}") for key in "AEB")
        if values.shape != (down.shape[0], 1):
            raise ZooError(
                f"Cannot load the adapter in {folder}: lora_E of {path} has shape "
                f"{tuple(values.shape)}; expected ({down.shape[0]}, 1)."
            )
        found[site] = (down * values, up * settings.scale)
    factors = split_wholes(encoder, modules, found)
    return config, stored, {site: Factors(*both) for site, both in factors.items()}
