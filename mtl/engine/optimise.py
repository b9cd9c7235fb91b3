"""Optimiser and schedule of one stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from mtl.engine.attached import Group
    from mtl.engine.settings import RunSettings


class Optimiser:
    """AdamW over named parameters, with the learning rate a pure function of the step.

    The rate of step k of S is ``lr · lr_factor · f(k)`` (factors of stage and group), f rising
    linearly over the first ``warmup · S`` steps and falling linearly to 0 at S
    (specs/composition_methods §0).
    """

    def __init__(
        self, groups: Sequence[Group], settings: RunSettings, steps: int, lr_factor: float = 1.0
    ) -> None:
        self._steps = max(steps, 1)
        self._warm = int(settings.warmup * self._steps + 0.999999)
        self._names: list[str] = []
        self.parameters: list[nn.Parameter] = []
        built: list[dict[str, Any]] = []
        self._peaks: list[float] = []
        self._constant: list[bool] = []
        for group in groups:
            decayed: list[tuple[str, nn.Parameter]] = []
            plain: list[tuple[str, nn.Parameter]] = []
            for name, parameter in group.parameters.items():
                # Biases and normalisation are vectors; only matrices decay by default.
                free = group.weight_decay is None and parameter.ndim < 2
                (plain if free else decayed).append((name, parameter))
            decay = settings.weight_decay if group.weight_decay is None else group.weight_decay
            for items, amount in ((decayed, decay), (plain, 0.0)):
                if items:
                    self._names += [name for name, _ in items]
                    self.parameters += [parameter for _, parameter in items]
                    own = group.constant_lr
                    peak = settings.lr * lr_factor * group.lr_factor
                    self._peaks.append(peak if own is None else own)
                    self._constant.append(own is not None)
                    built.append(
                        {
                            "params": [parameter for _, parameter in items],
                            "weight_decay": amount,
                            **group.options,
                        }
                    )
        # On a GPU one kernel per group in place of a dozen, and no step counters on the host.
        fused = bool(self.parameters) and all(p.is_cuda for p in self.parameters)
        self._adam = torch.optim.AdamW(built, lr=settings.lr, fused=fused or None)

    def factor(self, step: int) -> float:
        """f(step): the share of the peak rate at the 0-based ``step``."""
        if step < self._warm:
            return step / max(self._warm, 1)
        return max(0.0, (self._steps - step) / max(self._steps - self._warm, 1))

    def step(self, step: int) -> None:
        """Take the 0-based optimiser step ``step`` with the rate of the schedule."""
        factor = self.factor(step)
        rows = zip(self._adam.param_groups, self._peaks, self._constant, strict=True)
        for group, peak, constant in rows:
            group["lr"] = peak if constant else peak * factor
        self._adam.step()

    def clear(self) -> None:
        """Drop all gradients."""
        self._adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, torch.Tensor]:
        """Moments and step counters by parameter name."""
        found = {}
        for index, values in self._adam.state_dict()["state"].items():
            for key, value in values.items():
                found[f"{self._names[index]}|{key}"] = value
        return found

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take back what :meth:`state` returned."""
        state: dict[int, dict[str, torch.Tensor]] = {}
        position = {name: index for index, name in enumerate(self._names)}
        for key, value in tensors.items():
            name, _, part = key.rpartition("|")
            state.setdefault(position[name], {})[part] = value
        groups = self._adam.state_dict()["param_groups"]
        self._adam.load_state_dict({"state": state, "param_groups": groups})
