"""The loop: determinism, stages, gradients, evaluations, and what must stop a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_bench import SPEC, cpu, encoded, events, job, same, state
from torch import nn

from mtl.data import Passes
from mtl.engine import EvalSet, Stage, evaluate, train
from mtl.engine.loop import Step, take_step
from mtl.engine.optimise import Optimiser
from mtl.errors import RunError


def test_same_seed_same_run_other_seed_another(tmp_path: Path) -> None:
    runs = [job(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1))]
    outcomes = [train(run, cpu()) for run in runs]
    assert same(state(runs[0]), state(runs[1]))
    assert events(runs[0]) == events(runs[1])
    assert not same(state(runs[0]), state(runs[2]))
    assert outcomes[0].best_value == outcomes[1].best_value
    assert outcomes[0].trainable == 8 * 8 + 8 + 16 + 18


def test_it_learns_and_leaves_the_frozen_weights_alone(tmp_path: Path) -> None:
    run = job(tmp_path, rows=400, epochs=12)
    frozen = run.attached.network.frozen.weight.detach().clone()
    before = evaluate(run.attached, run.dev[SPEC.id], cpu(), Passes(rows=16))
    outcome = train(run, cpu())
    after = evaluate(run.attached, run.dev[SPEC.id], cpu(), Passes(rows=16))
    assert torch.equal(run.attached.network.frozen.weight, frozen)
    assert after.loss < before.loss - 0.1
    assert after.metrics["accuracy"] > 0.75
    assert after.loss == outcome.best_value
    assert outcome.steps == 12 * 50
    assert not run.attached.network.training


def test_randomness_outside_the_run_changes_nothing(tmp_path: Path) -> None:
    first, second = job(tmp_path / "a"), job(tmp_path / "b")
    train(first, cpu())
    torch.rand(17)
    train(second, cpu())
    assert same(state(first), state(second))


class Poisoned(nn.Module):
    """Adds a NaN to the loss of one step."""

    def __init__(self, at: int, value: float) -> None:
        super().__init__()
        self.at, self.value, self.calls = at, value, 0

    def penalty(self) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"poison": torch.tensor(self.value if self.calls == self.at + 1 else 0.0)}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_with_step_and_settings(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_RESUME_SECONDS", "0")
    poison = Poisoned(9, value)
    run = job(tmp_path, changes={"penalties": [poison.penalty]}, lr=0.02)
    with pytest.raises(RunError, match=r"step 9 .*lr=0\.02.*seed=0.*Nothing was stored"):
        train(run, cpu())
    point = run.folder.load_point()
    assert point is not None
    assert all(t.isfinite().all() for t in point[0].values() if t.is_floating_point())
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("select", ["loss", "metric"])
def test_parameters_that_became_nan_in_the_last_step_are_never_selected(
    select: str, tmp_path: Path
) -> None:
    run = job(tmp_path, select=select, epochs=1)

    def spoil(step: int) -> None:
        if step == 6:  # the last before the only evaluation
            with torch.no_grad():
                run.attached.network.head.weight.fill_(float("nan"))

    run.attached.after = [spoil]
    with pytest.raises(RunError, match="dev loss is nan after step 7"):
        train(run, cpu())


@pytest.mark.parametrize("micro", [1, 3, 5])
@pytest.mark.parametrize("penalised", [False, True])
def test_micro_batches_give_the_gradient_of_the_batch(
    micro: int, penalised: bool, tmp_path: Path
) -> None:
    gradients = []
    for size in (0, micro):
        run = job(tmp_path, dropout=0.0, dtype=torch.float64, micro_batch_size=size, clip=0.0)
        if penalised:
            weight = run.attached.network.head.weight
            run.attached.penalties = [lambda w=weight: {"l2": (w**2).sum()}]
        rows = run.feed.order(0)[0][1]
        assert len(rows) == 8
        optimiser = Optimiser(run.attached.groups(), run.settings, 10)
        take_step(run, cpu(), Step(SPEC.id, rows, optimiser, 0))
        gradients.append([parameter.grad.clone() for parameter in optimiser.parameters])
    for whole, cut in zip(*gradients, strict=True):
        # The loss is taken in fp32, so fp64 gradients agree to fp32's accuracy only.
        torch.testing.assert_close(whole, cut, rtol=1e-5, atol=1e-7)
        assert whole.abs().max() > 0


@pytest.mark.parametrize("overhead", [0.0, 4.0, 1e9])
@pytest.mark.parametrize("micro", [0, 3])
def test_pieces_of_like_length_give_the_gradient_of_the_batch(
    overhead: float, micro: int, tmp_path: Path
) -> None:
    gradients, passes = [], []
    for cost in (float("inf"), overhead):
        most = 0 if cost == float("inf") else micro
        run = job(tmp_path, dropout=0.0, dtype=torch.float64, clip=0.0, micro_batch_size=most)
        run = dataclasses.replace(run, overhead=cost)
        seen: list[int] = []
        run.attached.network.register_forward_pre_hook(
            lambda module, args, seen=seen: seen.append(args[0]["input_ids"].shape[1])
        )
        rows = run.feed.order(0)[0][1]
        optimiser = Optimiser(run.attached.groups(), run.settings, 10)
        take_step(run, cpu(), Step(SPEC.id, rows, optimiser, 0))
        gradients.append([parameter.grad.clone() for parameter in optimiser.parameters])
        passes.append(seen)
    for whole, pieces in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, pieces, rtol=1e-5, atol=1e-7)
    lengths = sorted(set(run.feed.tokens(SPEC.id, rows).tolist()), reverse=True)
    assert passes[0] == lengths[:1]
    if overhead == 0:  # every length by itself, or fewer rows where micro-batches are smaller
        assert sorted(set(passes[1]), reverse=True) == lengths
    if overhead == 1e9:
        assert len(passes[1]) == (1 if not micro else 3)


def test_whole_batches_are_never_cut_by_length(tmp_path: Path) -> None:
    run = dataclasses.replace(job(tmp_path, changes={"whole_batches": True}), overhead=0.0)
    seen: list[int] = []
    run.attached.network.register_forward_pre_hook(lambda module, args: seen.append(1))
    optimiser = Optimiser(run.attached.groups(), run.settings, 10)
    take_step(run, cpu(), Step(SPEC.id, run.feed.order(0)[0][1], optimiser, 0))
    assert seen == [1]


def test_the_gradient_is_clipped_as_a_whole(tmp_path: Path) -> None:
    run = job(tmp_path, clip=0.05)
    optimiser = Optimiser(run.attached.groups(), run.settings, 10)
    take_step(run, cpu(), Step(SPEC.id, run.feed.order(0)[0][1], optimiser, 0))
    norm = torch.cat([p.grad.reshape(-1) for p in optimiser.parameters]).norm().item()
    assert norm == pytest.approx(0.05, rel=1e-3)


def test_stages_have_fresh_schedules_and_train_what_they_name(tmp_path: Path) -> None:
    seen: list[tuple[int, str, bool, bool]] = []
    run = job(
        tmp_path,
        changes={"plan": lambda settings: [Stage("a", 2, ("head",)), Stage("b", 1, ("body",))]},
    )
    rates = []
    network = run.attached.network
    before: dict[str, torch.Tensor] = {}

    def watch(step: int) -> None:
        seen.append(
            (step, "", network.head.weight.requires_grad, network.body.weight.requires_grad)
        )
        rates.append(0)
        if step == 13:
            before.update({k: v.detach().clone() for k, v in network.state_dict().items()})

    first_body = network.body.weight.detach().clone()
    run.attached.after = [watch]
    outcome = train(run, cpu())
    assert [item[0] for item in seen] == list(range(21))
    assert all(head and not body for _, _, head, body in seen[:14])
    assert all(body and not head for _, _, head, body in seen[14:])
    assert torch.equal(before["body.weight"], first_body)
    assert outcome.steps == 21
    assert [event["stage"] for event in events(run)] == [0, 0, 1]


def test_max_steps_and_evaluations_between(tmp_path: Path) -> None:
    run = job(tmp_path, max_steps=10, eval_every=4, epochs=99)
    outcome = train(run, cpu())
    assert outcome.steps == 10
    assert [event["step"] for event in events(run)] == [4, 8, 10]
    assert outcome.epochs == pytest.approx(10 / 7, abs=1e-3)


def test_caches_are_entered_for_evaluations_only(tmp_path: Path) -> None:
    from contextlib import contextmanager

    inside = [0, 0]

    @contextmanager
    def cache() -> Any:
        inside[0] += 1
        inside[1] += 1
        yield
        inside[1] -= 1

    def outside(step: int) -> None:
        assert inside[1] == 0

    train(job(tmp_path, changes={"caches": (cache,), "after": [outside]}), cpu())
    assert inside == [3, 0]


def test_one_parameter_under_two_names_is_a_defect_of_the_method(tmp_path: Path) -> None:
    from mtl.engine import Group

    run = job(tmp_path)
    weight = run.attached.network.head.weight
    run.attached.trainable = [Group("a", {"x": weight}), Group("b", {"y": weight})]
    with pytest.raises(ValueError, match="two names"):
        train(run, cpu())


@pytest.mark.parametrize("batch", [1, 20, 100, 1000])
def test_evaluation_does_not_depend_on_what_passes_at_once(batch: int, tmp_path: Path) -> None:
    run = job(tmp_path)
    data = EvalSet(SPEC, encoded(40, 2, "dev"))
    found = evaluate(run.attached, data, cpu(), Passes(tokens=batch))
    reference = evaluate(run.attached, data, cpu(), Passes())
    assert found.row.tolist() == list(range(40))
    assert found.label.tolist() == data.encoded.labels.tolist()
    assert found.prediction.tolist() == reference.prediction.tolist()
    assert found.loss == pytest.approx(reference.loss, rel=1e-6)
    assert run.attached.network.training


def test_summary_holds_value_error_and_n(tmp_path: Path) -> None:
    run = job(tmp_path)
    found = evaluate(run.attached, run.dev[SPEC.id], cpu(), Passes(rows=16))
    right = (found.prediction == found.label).mean()
    summary = found.summary()["accuracy"]
    assert summary["n"] == 40
    assert summary["value"] == pytest.approx(right)
    assert summary["stderr"] == pytest.approx((right * (1 - right) / 40) ** 0.5, rel=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_auto_precision_without_a_gpu_is_fp32() -> None:
    from mtl.engine.hardware import resolve_precision

    assert resolve_precision("auto") == "fp32"
    assert resolve_precision("bf16") == "bf16"
    assert cpu().describe() == {"device": "cpu", "precision": "fp32", "threads": 1, "processes": 1}
