"""AdamW as the Hugging Face library shipped it, with which the references trained."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import Any

import torch


class HFAdamW(torch.optim.Optimizer):
    """AdamW whose eps is not corrected for bias, and whose decay follows the step.

    With m and v the usual moments (``m ← b1·m + (1−b1)·g``, ``v ← b2·v + (1−b2)·g²``) and t the
    number of gradients that the parameter has had::

        p ← p − lr·√(1−b2^t)/(1−b1^t) · m/(√v + eps)
        p ← p − lr·weight_decay·p

    ``torch.optim.AdamW`` divides v by ``1−b2^t`` first, so its eps weighs √(1−b2^t) as much: a 32nd
    at t = 1, half at t = 288, 0.8 at t = 1,000. Where gradients are of the size of eps, first steps
    are up to 32 times smaller here (docs/methods.md#optimiser).

    A parameter without gradient is passed over, its t stays. All parameters of a group are updated
    together (``torch._foreach_*``); nothing is read from their device.

    Args:
        groups: parameter groups, with ``weight_decay``, ``betas`` and ``eps`` where they differ.
        lr: learning rate of groups that name none.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(
            groups, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take one step with the gradients that are there; a closure is not supported."""
        if closure is not None:
            raise ValueError("HFAdamW takes no closure")
        for group in self.param_groups:
            used = [parameter for parameter in group["params"] if parameter.grad is not None]
            if used:
                self._update(group, used)

    def _update(self, group: dict[str, Any], used: list[torch.Tensor]) -> None:
        lr, eps, (beta1, beta2) = group["lr"], group["eps"], group["betas"]
        gradients = [parameter.grad for parameter in used if parameter.grad is not None]
        states = [self.state[parameter] for parameter in used]
        sizes = []
        for parameter, state in zip(used, states, strict=True):
            if not state:
                state["step"] = 0
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            # a number on the host; read back from a resume point it is a tensor there
            state["step"] = t = int(state["step"]) + 1
            sizes.append(-lr * sqrt(1 - beta2**t) / (1 - beta1**t))
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        torch._foreach_mul_(means, beta1)
        torch._foreach_add_(means, gradients, alpha=1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_add_(divisors, eps)
        torch._foreach_addcdiv_(used, means, divisors, sizes)
        if group["weight_decay"]:
            torch._foreach_mul_(used, 1 - lr * group["weight_decay"])
