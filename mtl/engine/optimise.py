"""Optimiser and schedule of one stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mtl.engine.hf_adamw import HFAdamW

if TYPE_CHECKING:
    from mtl.engine.attached import Group
    from mtl.engine.settings import RunSettings


def _torch_adamw(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    # On a GPU one kernel per group in place of a dozen, and no step counters on the host.
    fused = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, lr=lr, fused=fused or None)


_Made = Callable[[list[dict[str, Any]], float], torch.optim.Optimizer]
ADAM_FORMS: Mapping[str, _Made] = {
    "torch": _torch_adamw,
    "hf": HFAdamW,
}
"""Values of ``adam_form``: :class:`torch.optim.AdamW` or :class:`~mtl.engine.hf_adamw.HFAdamW`."""


class Optimiser:
    """AdamW over named parameters, with the learning rate a pure function of the step.

    The rate of step k of S is ``lr · lr_factor · f(k)`` (factors of stage and group), f rising
    linearly over the first ``warmup_steps`` of S and falling linearly to 0 at S
    (docs/methods.md#optimiser). Which form AdamW has, the run says (``adam_form``), or a group
    that is defined with one.
    """

    def __init__(
        self, groups: Sequence[Group], settings: RunSettings, steps: int, lr_factor: float = 1.0
    ) -> None:
        self.sync: Callable[[], None] = lambda: None
        """Called before the state is read: whoever takes the steps elsewhere brings it here."""
        self._steps = max(steps, 1)
        self._peak = settings.lr * lr_factor
        self._warm = settings.warmup_steps(self._steps)
        self.parameters: list[nn.Parameter] = []
        built: dict[str, list[dict[str, Any]]] = {}
        for group in groups:
            decayed: list[tuple[str, nn.Parameter]] = []
            plain: list[tuple[str, nn.Parameter]] = []
            for name, parameter in group.parameters.items():
                # Biases and normalisation are vectors; only matrices decay by default.
                free = group.weight_decay is None and parameter.ndim < 2
                (plain if free else decayed).append((name, parameter))
            decay = settings.weight_decay if group.weight_decay is None else group.weight_decay
            own, peak = group.constant_lr, settings.lr * lr_factor * group.lr_factor
            for items, amount in ((decayed, decay), (plain, 0.0)):
                if items:
                    self.parameters += [parameter for _, parameter in items]
                    built.setdefault(group.adam_form or settings.adam_form, []).append(
                        {
                            "params": [parameter for _, parameter in items],
                            "names": [name for name, _ in items],
                            "peak": peak if own is None else own,
                            "scheduled": own is None,
                            "weight_decay": amount,
                            **group.options,
                        }
                    )
        self.adams = [ADAM_FORMS[form](part, settings.lr) for form, part in built.items()]

    def factor(self, step: int) -> float:
        """f(step): the share of the peak rate at the 0-based ``step``."""
        if step < self._warm:
            return step / max(self._warm, 1)
        return max(0.0, (self._steps - step) / max(self._steps - self._warm, 1))

    def rate(self, step: int) -> float:
        """The learning rate at the 0-based ``step``, of groups without a factor of their own."""
        return self._peak * self.factor(step)

    def set_rates(self, step: int) -> None:
        """Give every group the rate of the schedule at the 0-based ``step``."""
        factor = self.factor(step)
        for adam in self.adams:
            for group in adam.param_groups:
                group["lr"] = group["peak"] * (factor if group["scheduled"] else 1.0)

    def step(self, step: int) -> None:
        """Take the 0-based optimiser step ``step`` with the rate of the schedule."""
        self.set_rates(step)
        for adam in self.adams:
            adam.step()

    def clear(self) -> None:
        """Drop all gradients."""
        for adam in self.adams:
            adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, torch.Tensor]:
        """Moments and step counters by parameter name."""
        self.sync()
        return {
            f"{name}|{key}": torch.as_tensor(value)
            for adam in self.adams
            for group in adam.param_groups
            for name, parameter in zip(group["names"], group["params"], strict=True)
            for key, value in adam.state.get(parameter, {}).items()
        }

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what :meth:`state` returned."""
        by_name: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            name, _, part = key.rpartition("|")
            by_name.setdefault(name, {})[part] = value
        for adam in self.adams:
            names = [name for group in adam.param_groups for name in group["names"]]
            state = {i: by_name.pop(name) for i, name in enumerate(names) if name in by_name}
            # moves the moments to where the parameters are
            adam.load_state_dict(
                {"state": state, "param_groups": adam.state_dict()["param_groups"]}
            )
        if by_name:
            raise KeyError(f"moments of parameters that do not train: {', '.join(sorted(by_name))}")
