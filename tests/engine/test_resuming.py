"""Killed and run again is an unbroken run, and resume points that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_bench import Killed, cpu, events, job, killer, same, state

from mtl.engine import Stage, train
from mtl.errors import RunError


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
