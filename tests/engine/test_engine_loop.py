"""The loop: determinism, resume, selection, stages, and what must stop a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_bench import SPEC, cpu, encoded, events, job, state
from torch import nn

from mtl.data import Passes
from mtl.engine import EvalSet, Stage, evaluate, train
from mtl.engine.loop import Step, take_step
from mtl.engine.optimise import Optimiser
from mtl.errors import RunError


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Killed(BaseException):
    """What a kill looks like from inside: nothing may catch it."""


def killer(at: int) -> Any:
    def after(step: int) -> None:
        if step == at:
            raise Killed

    return after


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


@pytest.mark.parametrize("kill_at", [0, 1, 5, 6, 7, 13, 19, 20])
@pytest.mark.parametrize("every", ["0", "1000"])
def test_killed_and_run_again_is_an_unbroken_run(
    kill_at: int, every: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 7 batches an epoch: kills inside epochs, at their last steps and at the very last step.
    whole = job(tmp_path / "whole")
    expected = train(whole, cpu())
    monkeypatch.setenv("MTL_RESUME_SECONDS", every)
    broken = job(tmp_path / "broken", changes={"after": [killer(kill_at)]})
    with pytest.raises(Killed):
        train(broken, cpu())
    assert broken.folder.point.is_file() == (every == "0" and kill_at > 0)
    torch.rand(3)
    again = job(tmp_path / "broken")
    outcome = train(again, cpu())
    assert same(state(again), state(whole))
    assert events(again) == events(whole)
    assert (outcome.best_value, outcome.best_step) == (expected.best_value, expected.best_step)
    assert (outcome.steps, outcome.epochs) == (expected.steps, expected.epochs)


def test_killed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = job(tmp_path / "whole", warmup=0.2, weight_decay=0.1, patience=2, eval_every=3)
    train(whole, cpu())
    monkeypatch.setenv("MTL_RESUME_SECONDS", "0")
    values = {"warmup": 0.2, "weight_decay": 0.1, "patience": 2, "eval_every": 3}
    for at in range(1, 21, 2):
        broken = job(tmp_path / "broken", changes={"after": [killer(at)]}, **values)
        try:
            train(broken, cpu())
        except Killed:
            continue
        break
    again = job(tmp_path / "broken", **values)
    train(again, cpu())
    assert same(state(again), state(whole))
    assert events(again) == events(whole)


def test_a_kill_between_evaluation_and_resume_point_repeats_the_evaluation_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = job(tmp_path / "whole")
    train(whole, cpu())
    monkeypatch.setenv("MTL_RESUME_SECONDS", "0")
    broken = job(tmp_path / "broken")
    import mtl.engine.loop as loop

    real, calls = loop.save_point, []

    def dies(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 14:  # step 14 is the end of epoch 2: its event is written, its point not
            raise Killed
        real(*args)

    monkeypatch.setattr(loop, "save_point", dies)
    with pytest.raises(Killed):
        train(broken, cpu())
    assert len(events(broken)) == 2
    monkeypatch.setattr(loop, "save_point", real)
    again = job(tmp_path / "broken")
    train(again, cpu())
    assert events(again) == events(whole)
    assert same(state(again), state(whole))


def test_a_finished_run_trains_nothing_more(tmp_path: Path) -> None:
    first = job(tmp_path)
    expected = train(first, cpu())
    again = job(tmp_path, changes={"after": [killer(step) for step in range(50)]})
    outcome = train(again, cpu())
    assert same(state(again), state(first))
    assert outcome.best_step == expected.best_step
    assert events(again) == events(first)


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


def test_patience_counts_evaluations_without_improvement(tmp_path: Path) -> None:
    run = job(tmp_path, epochs=40, patience=3, lr=0.5, warmup=0.0)
    outcome = train(run, cpu())
    found = events(run)
    assert outcome.stopped == "patience"
    assert len(found) < 40
    losses = [event["dev_loss"] for event in found]
    best = losses.index(min(losses))
    assert outcome.best_value == losses[best]
    assert len(found) == best + 1 + 3
    assert [event["best"] for event in found][-3:] == [False, False, False]
    never = job(tmp_path / "never", epochs=12, patience=0, lr=0.5)
    assert train(never, cpu()).stopped == "planned"
    assert len(events(never)) == 12


@pytest.mark.parametrize("eval_every", [0, 3, 5])
@pytest.mark.parametrize("patience", [2, "10 steps", "2 epochs"])
def test_patience_in_epochs_and_steps_is_the_same_however_often_is_evaluated(
    patience: int | str, eval_every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mtl.engine.selecting as selecting

    # Nothing improves after the first evaluation; an epoch has 7 batches.
    monkeypatch.setattr(selecting, "selection_value", lambda found, select: 0.5)
    values = {"epochs": 40, "patience": patience, "eval_every": eval_every}
    run = job(tmp_path / "whole", **values)
    outcome = train(run, cpu())
    every = eval_every or 7
    idle = {2: 2 * every, "10 steps": 10, "2 epochs": 14}[patience]
    # the first evaluation at which so much has passed since the best one
    assert outcome.steps == every + -(-idle // every) * every
    assert (outcome.stopped, outcome.best_step) == ("patience", every)
    monkeypatch.setenv("MTL_RESUME_SECONDS", "0")
    with pytest.raises(Killed):
        train(job(tmp_path / "broken", changes={"after": [killer(8)]}, **values), cpu())
    again = job(tmp_path / "broken", **values)
    train(again, cpu())
    assert events(again) == events(run)


@pytest.mark.parametrize("select", ["loss", "metric"])
def test_the_best_state_is_the_one_that_selection_saw(select: str, tmp_path: Path) -> None:
    run = job(tmp_path, epochs=10, lr=0.3, select=select)
    outcome = train(run, cpu())
    found = events(run)
    if select == "loss":
        values = [event["dev_loss"] for event in found]
        wanted = min(values)
    else:
        values = [event["metrics"]["accuracy"] for event in found]
        wanted = max(values)
    assert outcome.best_value == wanted
    # The first of equals: a later one must be strictly better.
    assert outcome.best_step == found[values.index(wanted)]["step"]
    assert outcome.selected_by == f"dev {select}"
    after = evaluate(run.attached, run.dev[SPEC.id], cpu(), Passes(rows=128))
    assert (after.loss if select == "loss" else after.metrics["accuracy"]) == wanted
    assert values[-1] != wanted  # else this test would not see that the best came back


@pytest.mark.parametrize("stages", [1, 2])
def test_last_keeps_the_state_after_the_last_step(
    stages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing selects: not the best, which comes earlier here, and no resume changes that."""
    seen: dict[str, torch.Tensor] = {}
    plan = [Stage(f"part {number}", 10 // stages) for number in range(stages)]

    def made(name: str, select: str, after: Any = None) -> Any:
        steps = [] if after is None else [after]
        changes = {"plan": lambda settings: plan, "after": steps}
        return job(tmp_path / name, lr=0.3, select=select, changes=changes)

    whole = made("whole", "last")
    whole.attached.after = [lambda step: seen.update(state(whole))]
    outcome = train(whole, cpu())
    found = events(whole)
    losses = [event["dev_loss"] for event in found]
    assert min(losses) < losses[-1]  # else the best is the last
    assert same(state(whole), seen)
    assert (outcome.selected_by, outcome.stopped) == ("last step", "planned")
    assert (outcome.best_step, outcome.best_value) == (outcome.steps, losses[-1])
    best = made("best", "loss")
    train(best, cpu())
    assert not same(state(best), state(whole))
    monkeypatch.setenv("MTL_RESUME_SECONDS", "0")
    with pytest.raises(Killed):
        train(made("broken", "last", killer(41)), cpu())
    again = made("broken", "last")
    train(again, cpu())
    assert same(state(again), state(whole))
    assert events(again) == found
    finished = made("broken", "last", killer(0))
    assert train(finished, cpu()).best_step == outcome.best_step
    assert same(state(finished), state(whole))


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


@pytest.mark.parametrize("kill_at", [3, 12, 13, 14, 17])
def test_stages_survive_a_kill(
    kill_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(settings: Any) -> list[Stage]:
        return [Stage("a", 2, ("head",)), Stage("b", 1, ("body",))]

    whole = job(tmp_path / "whole", changes={"plan": plan})
    train(whole, cpu())
    monkeypatch.setenv("MTL_RESUME_SECONDS", "0")
    broken = job(tmp_path / "broken", changes={"plan": plan, "after": [killer(kill_at)]})
    with pytest.raises(Killed):
        train(broken, cpu())
    again = job(tmp_path / "broken", changes={"plan": plan})
    train(again, cpu())
    assert same(state(again), state(whole))
    assert events(again) == events(whole)


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


class Stateful:
    """An attachment with state of its own: how many steps it has seen, and their sum."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.network = inner.network
        self.seen = 0
        self.total = torch.zeros(2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def after_step(self, step: int) -> None:
        self.inner.after_step(step)
        self.seen += 1
        self.total += step

    def state(self) -> Any:
        return {"total": self.total}, {"seen": self.seen}

    def load_state(self, tensors: Any, values: Any) -> None:
        self.total, self.seen = tensors["total"].clone(), values["seen"]


def test_state_of_a_method_is_in_the_resume_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_RESUME_SECONDS", "0")
    with pytest.raises(Killed):
        train(job(tmp_path, wrap=Stateful, changes={"after": [killer(11)]}), cpu())
    again = job(tmp_path, wrap=Stateful)
    train(again, cpu())
    assert again.attached.seen == 21
    assert again.attached.total.tolist() == [210.0, 210.0]


def test_a_resume_point_of_another_run_is_refused(tmp_path: Path) -> None:
    train(job(tmp_path, identity="a" * 16), cpu())
    with pytest.raises(RunError, match="another run"):
        train(job(tmp_path, identity="b" * 16), cpu())


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "no values", "surplus", "fields"])
def test_a_damaged_resume_point_is_one_clear_error(damage: str, tmp_path: Path) -> None:
    from mtl.files import read_safetensors, write_safetensors

    run = job(tmp_path)
    train(run, cpu())
    path = run.folder.point
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("not tensors")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        tensors, metadata = read_safetensors(path)
        if damage == "no values":
            metadata = {}
        elif damage == "surplus":
            tensors["strange:x"] = torch.zeros(1)
        else:
            metadata["values"] = json.dumps({**json.loads(metadata["values"]), "new": 1})
        write_safetensors(path, tensors, metadata)
    with pytest.raises(RunError, match="Delete"):
        train(job(tmp_path), cpu())


def test_a_resume_point_of_other_processes_is_refused(tmp_path: Path) -> None:
    from mtl.files import read_safetensors

    run = job(tmp_path)
    train(run, cpu())
    tensors, metadata = read_safetensors(run.folder.point)
    tensors["rng:7.cpu"] = tensors.pop("rng:0.cpu")
    run.folder.save_point(tensors, json.loads(metadata["values"]))
    with pytest.raises(RunError, match="process"):
        train(job(tmp_path), cpu())


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


@pytest.mark.parametrize("patience", [3, "3 epochs", "15 steps"])
def test_every_stage_has_a_schedule_and_patience_of_its_own(
    patience: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mtl.engine.loop as loop
    import mtl.engine.selecting as selecting

    factors: list[float] = []

    class Recorded(Optimiser):
        def step(self, step: int) -> None:
            factors.append(self.factor(step))
            super().step(step)

    monkeypatch.setattr(loop, "Optimiser", Recorded)
    plan = [Stage("a", 9, ("head",)), Stage("b", 9, ("body",))]
    run = job(tmp_path, patience=patience, select="metric", changes={"plan": lambda _: plan})
    # Nothing improves after the first evaluation: every later one counts against patience.
    monkeypatch.setattr(selecting, "selection_value", lambda found, select: 0.5)
    outcome = train(run, cpu())
    stages = [event["stage"] for event in events(run)]
    assert stages == [0] * 4 + [1] * 3
    assert outcome.stopped == "patience"
    starts = [step for step, factor in enumerate(factors) if factor == 1.0]
    assert starts == [0, 4 * 7]
    assert factors[:3] == pytest.approx([1 - k / 63 for k in range(3)])
