"""Parameters of N runs in one tensor, and AdamW over it with N learning rates.

Parameters that are optimised alike (one group of :class:`~mtl.engine.optimise.Optimiser`) lie in
one buffer (N,S), a row per run; so do their gradients and moments. Every parameter of a run stays
what it was to everyone who holds it: its values are a view of the run's row, its gradient one of
the gradients' row. Beside it there is the *stacked* parameter (N,…), another view of the same
values and gradients, which a batched product takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.optim.adamw import adamw

from mtl.engine.hf_adamw import HFAdamW
from mtl.engine.optimise import Optimiser

Slot = dict[str, Any]
"""A parameter group of an optimiser: ``params``, ``names``, ``lr``, ``weight_decay``, …"""


def slots(optimiser: Optimiser) -> list[tuple[bool, Slot, torch.optim.Optimizer]]:
    """The parameter groups of a run in their order: (whether HF's form, group, whose it is)."""
    return [
        (isinstance(adam, HFAdamW), slot, adam)
        for adam in optimiser.adams
        for slot in adam.param_groups
    ]


def alike(first: Optimiser, other: Optimiser) -> bool:
    """Whether both are optimised alike: groups, how many parameters, forms, betas and eps."""

    def form(optimiser: Optimiser) -> list[Any]:
        return [
            (hf, slot["betas"], slot["eps"], len(slot["params"]))
            for hf, slot, _ in slots(optimiser)
        ]

    return form(first) == form(other)


@dataclass
class _Rows:
    """A slot of all runs: values, gradients and moments (N,S), and the runs' slots.

    Every parameter has as many numbers of S as its largest of all runs.
    """

    hf: bool
    slots: list[Slot]
    adams: list[torch.optim.Optimizer]
    sizes: list[int]
    values: Tensor
    gradients: Tensor
    means: Tensor
    squares: Tensor


@dataclass
class Stacks:
    """The trainable parameters of N runs, stacked until :meth:`release`.

    Attributes:
        stacked: id of a parameter of any run → the stacked parameter (N,…) that it is a row of;
            of those whose shape the runs have otherwise (heads of other tasks), nothing.
    """

    optimisers: Sequence[Optimiser]
    stacked: dict[int, nn.Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._gradients: list[tuple[nn.Parameter, Tensor]] = []
        per_run = [slots(optimiser) for optimiser in self.optimisers]
        self._rows = [self._stack(list(column)) for column in zip(*per_run, strict=True)]
        self._taken = [self._steps_of(number) for number in range(len(self.optimisers))]
        for run, optimiser in enumerate(self.optimisers):
            optimiser.sync = partial(self._write_back, run)

    def attach(self) -> None:
        """Make the gradients of all parameters rows of the stacks, after runs cleared theirs."""
        for parameter, gradient in self._gradients:
            parameter.grad = gradient

    def _stack(self, column: list[tuple[bool, Slot, torch.optim.Optimizer]]) -> _Rows:
        columns = [slot["params"] for _, slot, _ in column]
        sizes = [max(p.numel() for p in each) for each in zip(*columns, strict=True)]

        def buffer(of: Any) -> Tensor:
            return torch.stack(
                [
                    torch.cat(
                        [_filled(of(run, p), size) for p, size in zip(own, sizes, strict=True)]
                    )
                    for run, own in enumerate(columns)
                ]
            )

        def moment(key: str) -> Any:
            return lambda run, p: column[run][2].state.get(p, {}).get(key, torch.zeros_like(p))

        with torch.no_grad():
            values = buffer(lambda run, p: p.detach())
            rows = _Rows(
                column[0][0],
                [slot for _, slot, _ in column],
                [adam for _, _, adam in column],
                sizes,
                values,
                torch.zeros_like(values),
                buffer(moment("exp_avg")),
                buffer(moment("exp_avg_sq")),
            )
            alike = zip(*columns, strict=True)
            for start, size, own in zip(_starts(sizes), sizes, alike, strict=True):
                inside = slice(start, start + size)
                for run, parameter in enumerate(own):
                    parameter.data = _row(values, run, start, parameter)
                    self._gradients.append((parameter, _row(rows.gradients, run, start, parameter)))
                if len({tuple(parameter.shape) for parameter in own}) == 1:
                    shape = (len(own), *own[0].shape)
                    stacked = nn.Parameter(values[:, inside].view(shape))
                    self._gradients.append((stacked, rows.gradients[:, inside].view(shape)))
                    self.stacked.update({id(parameter): stacked for parameter in own})
        return rows

    def _steps_of(self, run: int) -> int:
        """How many steps a run took before; all its parameters trained in each."""
        for rows in self._rows:
            for parameter in rows.slots[run]["params"]:
                state = rows.adams[run].state.get(parameter)
                if state:
                    return int(state["step"])
        return 0

    @torch.no_grad()
    def step(self, numbers: Sequence[int], clips: Sequence[float]) -> None:
        """Clip and take one step of every run, whose gradients are there.

        Args:
            numbers: of the step in each run's schedule.
            clips: largest norm of each run's gradient, 0 for any.
        """
        if any(clips):
            norms = torch.stack([rows.gradients.square().sum(1) for rows in self._rows])
            most = norms.new_tensor(list(clips))
            factors = (most / (norms.sum(0).sqrt() + 1e-6)).clamp(max=1.0)
            factors = factors.where(most > 0, 1.0).unsqueeze(1)
            for rows in self._rows:
                rows.gradients.mul_(factors)
        for run, (optimiser, number) in enumerate(zip(self.optimisers, numbers, strict=True)):
            optimiser.set_rates(number)
            self._taken[run] += 1
        for rows in self._rows:
            _update(rows, self._taken)
            rows.gradients.zero_()

    def _write_back(self, run: int) -> None:
        """Let the run's own optimiser know the moments, as its resume point wants them."""
        if not self._taken[run]:
            return
        step = torch.tensor(float(self._taken[run]))
        for rows in self._rows:
            places = zip(_starts(rows.sizes), rows.slots[run]["params"], strict=True)
            for start, parameter in places:
                state = rows.adams[run].state[parameter]
                state["step"] = step
                state["exp_avg"] = _row(rows.means, run, start, parameter)
                state["exp_avg_sq"] = _row(rows.squares, run, start, parameter)

    def release(self) -> None:
        """Give every run tensors of its own again, moments included; no gradients are left."""
        for run in range(len(self.optimisers)):
            self._write_back(run)
            self.optimisers[run].sync = _nothing
        for rows in self._rows:
            for slot, adam in zip(rows.slots, rows.adams, strict=True):
                for parameter in slot["params"]:
                    parameter.data, parameter.grad = parameter.data.clone(), None
                    state = adam.state.get(parameter, {})
                    for key, value in state.items():
                        state[key] = value.clone()
        self.stacked.clear()
        self._gradients.clear()


def _starts(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:place]) for place in range(len(sizes))]


def _row(buffer: Tensor, run: int, start: int, like: Tensor) -> Tensor:
    return buffer[run, start : start + like.numel()].view(like.shape)


def _filled(tensor: Tensor, size: int) -> Tensor:
    return functional.pad(tensor.reshape(-1), (0, size - tensor.numel()))


def _nothing() -> None:
    """What an optimiser has to do whose parameters are its own."""


def _update(rows: _Rows, taken: Sequence[int]) -> None:
    """AdamW of a slot, every run at its own rate and its own step, ``taken`` counted from 1."""

    def column(numbers: Sequence[float]) -> Tensor:
        return rows.values.new_tensor(list(numbers)).unsqueeze(1)

    (beta1, beta2), eps = rows.slots[0]["betas"], rows.slots[0]["eps"]
    if not rows.hf:
        _torch_update(rows, taken)
        return
    rates = [slot["lr"] for slot in rows.slots]
    decays = [slot["lr"] * slot["weight_decay"] for slot in rows.slots]
    kept = column([1 - decay for decay in decays]) if any(decays) else None
    first = [1 - beta1**t for t in taken]
    second = [math.sqrt(1 - beta2**t) for t in taken]
    rows.means.lerp_(rows.gradients, 1 - beta1)
    rows.squares.mul_(beta2).addcmul_(rows.gradients, rows.gradients, value=1 - beta2)
    divisors = rows.squares.sqrt()
    divisors.add_(eps)
    sizes = [lr * s / f for lr, f, s in zip(rates, first, second, strict=True)]
    rows.values.sub_(rows.means / divisors * column(sizes))
    if kept is not None:
        rows.values.mul_(kept)


def _torch_update(rows: _Rows, taken: Sequence[int]) -> None:
    """The same as torch has it: a call per run, which counts the step and reads numbers once."""
    parts = (rows.values, rows.gradients, rows.means, rows.squares)
    for run, (slot, step) in enumerate(zip(rows.slots, taken, strict=True)):
        values, gradients, means, squares = ([part[run]] for part in parts)
        adamw(
            values,
            gradients,
            means,
            squares,
            [],
            [torch.tensor(step - 1.0, device=rows.values.device)],
            fused=True,
            amsgrad=False,
            beta1=slot["betas"][0],
            beta2=slot["betas"][1],
            lr=slot["lr"],
            weight_decay=slot["weight_decay"],
            eps=slot["eps"],
            maximize=False,
        )
