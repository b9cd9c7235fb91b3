"""Patience, and the state that is kept: the best of the evaluations, or the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_bench import SPEC, Killed, cpu, events, job, killer, same, state

from mtl.data import Passes
from mtl.engine import Stage, evaluate, train
from mtl.engine.optimise import Optimiser


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
