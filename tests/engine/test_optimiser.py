"""Rates, the two forms of AdamW, weight decay, and the state of an optimiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mtl.engine import Group, RunSettings
from mtl.engine.optimise import Optimiser
from mtl.engine.stacks import Stacks


def optimiser(steps: int, groups: list[Group] | None = None, **values: Any) -> Optimiser:
    chosen = groups or [Group("g", {"w": nn.Parameter(torch.ones(2, 2))})]
    return Optimiser(chosen, RunSettings(**values), steps)


def test_the_rate_falls_linearly_to_zero() -> None:
    found = optimiser(10)
    assert [found.factor(k) for k in range(11)] == pytest.approx([1 - k / 10 for k in range(11)])
    assert found.factor(12) == 0.0


def test_the_rate_rises_during_warm_up() -> None:
    found = optimiser(30, warmup=0.1)
    assert [found.factor(k) for k in (0, 1, 2, 3)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert found.factor(16) == pytest.approx(14 / 27)
    assert found.factor(30) == 0.0


def test_the_schedule_is_that_of_transformers() -> None:
    from transformers import get_linear_schedule_with_warmup

    cases = ((7, 0.0), (50, 0.1), (33, 0.25), (50, "7 steps"), (20, "30 steps"))
    for steps, warmup in cases:
        found = optimiser(steps, warmup=warmup)
        adam = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=1.0)
        if isinstance(warmup, str):
            warm = int(warmup.split()[0])
        else:
            warm = int(np.ceil(round(steps * warmup, 9)))
        theirs = get_linear_schedule_with_warmup(adam, warm, steps)
        for step in range(steps):
            assert found.factor(step) == pytest.approx(theirs.get_last_lr()[0])
            adam.step()
            theirs.step()


def test_rate_factors_of_groups_and_steps_of_adamw() -> None:
    """Two steps against torch's AdamW by hand, one group at ten times the rate."""
    start = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    gradients = [torch.tensor([[0.1, -0.2], [0.3, 0.4]]), torch.tensor([[0.2, 0.2], [-0.1, 1.0]])]
    slow, fast = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    found = optimiser(
        4, [Group("a", {"slow": slow}), Group("b", {"fast": fast}, lr_factor=10.0)], lr=0.01
    )
    expected = [nn.Parameter(start.clone()), nn.Parameter(start.clone())]
    adams = [
        torch.optim.AdamW([p], lr=0.0, weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8)
        for p in expected
    ]
    for step, gradient in enumerate(gradients):
        for parameter in (slow, fast):
            parameter.grad = gradient.clone()
        found.step(step)
        for adam, parameter, peak in zip(adams, expected, (0.01, 0.1), strict=True):
            parameter.grad = gradient.clone()
            adam.param_groups[0]["lr"] = peak * (1 - step / 4)
            adam.step()
    torch.testing.assert_close(slow, expected[0], rtol=0, atol=0)
    torch.testing.assert_close(fast, expected[1], rtol=0, atol=0)


def test_weight_decay_reaches_matrices_only() -> None:
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    omega, gate = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    found = optimiser(
        10,
        [
            Group("main", {"matrix": matrix, "vector": vector}),
            Group("omega", {"omega": omega}, weight_decay=0.0),
            Group("gate", {"gate": gate}, weight_decay=0.5),
        ],
        lr=0.1,
        weight_decay=0.2,
    )
    for parameter in found.parameters:
        parameter.grad = torch.zeros_like(parameter)
    found.step(0)
    assert torch.allclose(matrix, torch.full((2, 2), 1 - 0.1 * 0.2))
    assert torch.equal(vector, torch.ones(2))
    assert torch.equal(omega, torch.ones(2, 2))
    assert torch.allclose(gate, torch.full((2,), 1 - 0.1 * 0.5))


def by_hand(
    start: torch.Tensor,
    gradients: list[torch.Tensor | None],
    rates: list[float],
    *,
    decay: float,
    eps: float,
) -> torch.Tensor:
    """The Hugging Face form, entry by entry."""
    m, v, t = torch.zeros_like(start), torch.zeros_like(start), 0
    p = start.clone()
    for lr, g in zip(rates, gradients, strict=True):
        if g is None:
            continue
        t += 1
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        p = p - lr * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t) * m / (v.sqrt() + eps)
        p = p - lr * decay * p
    return p


def test_the_hugging_face_form_is_its_formula() -> None:
    """Sizes of gradients around eps, one parameter that is passed over, decay, two groups."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sizes = torch.tensor([1e-12, 1e-8, 1e-6, 1.0], dtype=torch.float64)
    starts = {"w": draw(3, 4), "b": draw(4), "task": draw(2, 4), "gate": draw(4)}
    gradients = {name: [draw(*x.shape) * sizes for _ in range(6)] for name, x in starts.items()}
    for step in (0, 2, 3):
        gradients["task"][step] = None  # a batch of another task
    own = {name: nn.Parameter(x.clone()) for name, x in starts.items()}
    groups = [
        Group("all", {name: own[name] for name in ("w", "b", "task")}),
        Group("gate", {"gate": own["gate"]}, weight_decay=0.0, options={"eps": 1e-6}, lr_factor=10),
    ]
    found = optimiser(12, groups, lr=0.01, weight_decay=0.1, warmup=0.2, adam_form="hf")
    for step in range(6):
        for name, parameter in own.items():
            parameter.grad = gradients[name][step]
        found.step(step)
    for name, parameter in own.items():
        rates = [0.01 * found.factor(k) * (10 if name == "gate" else 1) for k in range(6)]
        decay, eps = 0.0 if name in {"b", "gate"} else 0.1, 1e-6 if name == "gate" else 1e-8
        expected = by_hand(starts[name], gradients[name], rates, decay=decay, eps=eps)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-13, atol=1e-15)
    assert found.state()["task|step"] == 3
    assert found.state()["w|step"] == 6


def test_where_the_two_forms_of_adamw_differ() -> None:
    """In eps alone, and the less the longer: 31.6 times at the first step of a tiny gradient."""

    def moved(adam_form: str, size: float, steps: int) -> float:
        weight = nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))
        found = optimiser(10**9, [Group("g", {"w": weight})], lr=1.0, adam_form=adam_form)
        for step in range(steps):
            before = weight.item()
            weight.grad = torch.full((1, 1), size, dtype=torch.float64)
            found.step(step)
        return before - weight.item()

    for size, steps, ratio in ((1e-14, 1, 31.6), (1e-14, 1000, 1.258), (1.0, 1, 1.0)):
        both = moved("torch", size, steps) / moved("hf", size, steps)
        assert both == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize("adam_form", ["torch", "hf"])
def test_optimiser_state_goes_back_by_name(adam_form: str) -> None:
    def made() -> Optimiser:
        torch.manual_seed(0)
        weights = {"w": nn.Parameter(torch.randn(3, 3)), "b": nn.Parameter(torch.randn(3))}
        gate = {"gate": nn.Parameter(torch.randn(3))}
        groups = [Group("g", weights), Group("gate", gate, adam_form="hf")]
        return optimiser(9, groups, lr=0.1, weight_decay=0.1, adam_form=adam_form)

    def step(found: Optimiser, number: int) -> None:
        generator = torch.Generator().manual_seed(number)
        for parameter in found.parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        found.step(number)

    whole, first, second = made(), made(), made()
    for number in range(6):
        step(whole, number)
    for number in range(3):
        step(first, number)
    with torch.no_grad():
        for new, old in zip(second.parameters, first.parameters, strict=True):
            new.copy_(old)
    stored = {name: value.clone() for name, value in first.state().items()}
    assert {name.partition("|")[0] for name in stored} == {"w", "b", "gate"}
    second.load_state(stored)
    for number in range(3, 6):
        step(second, number)
    for a, b in zip(whole.parameters, second.parameters, strict=True):
        assert torch.equal(a, b)


def test_the_first_step_of_a_warm_up_moves_nothing() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    found = optimiser(10, [Group("g", {"w": weight})], lr=0.1, warmup=0.2)
    weight.grad = torch.ones(2, 2)
    found.step(0)
    assert torch.equal(weight, torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    found.step(1)
    assert torch.allclose(weight, torch.full((2, 2), 1 - 0.1 / 2), atol=1e-4)


@pytest.mark.parametrize("adam_form", ["torch", "hf"])
def test_a_run_that_does_not_clip_is_let_alone_beside_one_that_does(adam_form: str) -> None:
    """However large its gradient: one whose square is infinite, too."""

    def made() -> list[Optimiser]:
        values = {"lr": 0.1, "adam_form": adam_form}
        return [
            optimiser(4, [Group("g", {"w": nn.Parameter(torch.ones(2, 2))})], **values, clip=clip)
            for clip in (0.0, 1.0)
        ]

    def gradients(found: list[Optimiser]) -> None:
        for each, size in zip(found, (1e25, 3.0), strict=True):
            for parameter in each.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros(2, 2)
                parameter.grad += size

    alone, beside = made(), made()
    stacks = Stacks(beside)
    for number in range(2):
        gradients(alone)
        nn.utils.clip_grad_norm_(alone[1].parameters, 1.0)
        for each in alone:
            each.step(number)
            each.clear()
        stacks.attach()
        gradients(beside)
        stacks.step([number, number], [0.0, 1.0])
    stacks.release()
    for one, other in zip(alone, beside, strict=True):
        for a, b in zip(one.parameters, other.parameters, strict=True):
            assert torch.allclose(a, b, atol=1e-6), (a, b)
            assert b.isfinite().all()
