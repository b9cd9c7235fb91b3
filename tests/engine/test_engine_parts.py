"""Settings, feeds, seeds, run folders, several processes, selection by name."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from engine_bench import SPEC, cpu, encoded, job, state
from torch import nn

from mtl.engine import Device, RunFolder, RunSettings, TaskFeed, train
from mtl.engine.device import seed_everything
from mtl.engine.selecting import selection_value
from mtl.errors import RequestError, RunError
from mtl.files import read_safetensors


@pytest.mark.parametrize(
    "values",
    [
        {"lr": 0.0},
        {"lr": float("nan")},
        {"epochs": 0},
        {"batch_size": -1},
        {"eval_batch_size": -1},
        {"eval_tokens": -1},
        {"piece_overhead": -2},
        {"warmup": 1.0},
        {"warmup": -0.1},
        {"weight_decay": -1.0},
        {"patience": -1},
        {"patience": "-1 epochs"},
        {"patience": "5 days"},
        {"patience": 2.5},
        {"patience": True},
        {"patience": None},
        {"warmup": "0.5 steps"},
        {"warmup": "5 epochs"},
        {"warmup": [1]},
        {"select": "f2"},
        {"patience": 5, "select": "last"},
        {"max_length": 7},
        {"precision": "fp16"},
        {"adam_form": "keras"},
        {"class_weights": "balance"},
        {"max_train_samples": -5},
    ],
)
def test_unusable_settings_are_named(values: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        RunSettings(**values)
    name, *_ = values
    assert name in str(caught.value)


def test_lengths_have_one_form() -> None:
    """One length, one hash; a number keeps the type that old entries have."""
    for written, found in (
        (5, 5),
        ("5", 5),
        (5.0, 5),
        ("5 evaluations", 5),
        ("1 epoch", "1 epochs"),
        ("20epochs", "20 epochs"),
        (" 80 Steps ", "80 steps"),
        ("0 epochs", 0),
    ):
        kept = RunSettings(patience=written).patience
        assert (kept, type(kept)) == (found, type(found))
        assert RunSettings(patience=kept).patience == found
    for written, share in ((0, 0.0), ("0.1", 0.1), ("0 steps", 0.0), ("100 steps", "100 steps")):
        kept = RunSettings(warmup=written).warmup
        assert (kept, type(kept)) == (share, type(share))
    assert RunSettings().patience == "5 epochs"


def test_how_long_is_waited() -> None:
    cases = (
        (RunSettings(patience=3), {(2, 900, 1): False, (3, 3, 900): True}),
        (RunSettings(patience="20 steps"), {(9, 19, 4): False, (2, 20, 4): True}),
        (RunSettings(patience="20 epochs"), {(9, 79, 4): False, (2, 80, 4): True}),
        (RunSettings(patience=0), {(900, 900, 1): False}),
    )
    for settings, waits in cases:
        for (evaluations, steps, batches), ends in waits.items():
            assert settings.waited(evaluations, steps, batches) == ends


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(RequestError, match=r"lr=-1.*warmup=2.*select='x'"):
        RunSettings(lr=-1, warmup=2, select="x")


def test_identity_covers_what_decides_the_result() -> None:
    base = RunSettings()
    assert base.identity() == RunSettings(eval_batch_size=3, eval_tokens=9).identity()
    # pieces of a batch draw dropout of their own
    for change in ({"micro_batch_size": 2}, {"piece_overhead": 0}):
        assert base.identity() != RunSettings(**change).identity()
    for change in ({"lr": 1.0}, {"batch_size": 2}, {"clip": 0.0}, {"head": "pooler_linear"}):
        assert base.identity() != RunSettings(**change).identity()
    # what entries trained with that were made before there was a choice is not named
    younger = ({"adam_form": "hf"}, {"shots": 4}, {"max_dev_samples": 3})
    younger += ({"class_weights": "balanced"},)
    assert not {key for change in younger for key in change} & {*base.identity()}
    for change in younger:
        assert RunSettings(**change).identity().items() >= change.items()
        assert base.identity() != RunSettings(**change).identity()
    assert set(base.to_dict()) - set(base.identity()) == {
        "eval_batch_size",
        "eval_tokens",
    }


def test_batches_are_a_pure_function_of_seed_and_epoch() -> None:
    data = encoded(300, 1)
    feeds = {seed: TaskFeed(SPEC.id, data, 16, seed) for seed in (0, 1)}

    def order(seed: int, epoch: int) -> list[list[int]]:
        found = feeds[seed].order(epoch)
        assert {task for task, _ in found} == {SPEC.id}
        return [rows.tolist() for _, rows in found]

    first = order(0, 0)
    torch.rand(5)
    assert order(0, 0) == first
    assert order(0, 1) != first
    assert order(1, 0) != first
    assert sorted(row for batch in first for row in batch) == list(range(300))
    assert sorted(map(len, first)) == [12] + [16] * 18


def test_batches_are_padded_to_their_longest_and_know_their_task() -> None:
    data = encoded(20, 1)
    batch = TaskFeed(SPEC.id, data, 4, 0).collate(SPEC.id, np.array([3, 0, 11]))
    assert batch["task"] == SPEC.id
    assert batch["row"].tolist() == [3, 0, 11]
    assert batch["input_ids"].shape[1] == max(data.lengths[[3, 0, 11]])
    assert batch["attention_mask"].sum(1).tolist() == data.lengths[[3, 0, 11]].tolist()
    assert batch["labels"].tolist() == data.labels[[3, 0, 11]].tolist()
    assert (batch["input_ids"][batch["attention_mask"] == 0] == data.pad_id).all()


def test_seeds_of_purposes_are_apart() -> None:
    def draw(seed: int, purpose: str, rank: int = 0) -> list[float]:
        seed_everything(seed, purpose, rank)
        return torch.rand(3).tolist()

    assert draw(1, "init") == draw(1, "init")
    others = [draw(1, "train"), draw(2, "init"), draw(1, "init", 1), draw(11, "init")]
    assert all(other != draw(1, "init") for other in others)


def test_events_survive_a_cut_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.read_events() == []
    for step in (1, 2, 3):
        folder.add_event({"step": step, "loss": float("nan") if step == 2 else 0.5})
    with folder.events.open("a") as stream:
        stream.write('{"step": 4, "lo')
    assert [event["step"] for event in folder.read_events()] == [1, 2, 3]
    assert folder.read_events()[1]["loss"] is None
    folder.keep_events(2)
    assert [event["step"] for event in folder.read_events()] == [1, 2]
    assert folder.events.read_text().endswith("\n")


def test_one_process_holds_a_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from mtl.engine.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock('the same run'): pass"
    )
    command = [sys.executable, "-c", code, str(folder.path)]
    with folder.lock("a run"):
        held = subprocess.run(command, capture_output=True, text=True, check=False)
    assert held.returncode != 0
    assert f"process {os.getpid()}" in held.stderr
    assert subprocess.run(command, check=False).returncode == 0


def test_a_full_disk_stops_with_a_message_and_keeps_the_old_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.save_point({"a": torch.ones(2)}, {"step": 1})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mtl.files.os.fsync", full)
    with pytest.raises(RunError, match="No space left"):
        folder.save_point({"a": torch.zeros(2)}, {"step": 2})
    monkeypatch.undo()
    found = folder.load_point()
    assert found is not None
    assert found[0]["a"].tolist() == [1, 1]
    assert found[1] == {"step": 1}
    assert sorted(path.name for path in folder.point.parent.iterdir()) == ["point.safetensors"]


WORKER = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {here!r})
from pathlib import Path
from engine_bench import cpu, job, state
from mtl.engine import train
from mtl.files import write_json, write_safetensors
run = job(Path({folder!r}), dropout=0.0, rows=53, lr=0.01)
device = cpu()
assert device.world == 2, device.world
outcome = train(run, device)
if device.main:
    write_safetensors(Path({folder!r}) / "final.safetensors", state(run))
    write_json(Path({folder!r}) / "best.json", [outcome.best_value, outcome.best_step])
torch.distributed.destroy_process_group()
"""


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    """53 rows in batches of 8: the last batch of an epoch, of 5, is dealt out unevenly."""
    alone = job(tmp_path / "alone", dropout=0.0, rows=53, lr=0.01)
    expected = train(alone, cpu())
    folder = tmp_path / "both"
    code = WORKER.format(here=str(Path(__file__).parent), folder=str(folder))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = []
    for rank in range(2):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        workers.append(
            subprocess.Popen(
                [sys.executable, "-c", code],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        said = [worker.communicate(timeout=120)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], said
    found, _ = read_safetensors(folder / "final.safetensors")
    for name, value in state(alone).items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)
    value, step = json.loads((folder / "best.json").read_text())
    assert step == expected.best_step
    assert value == pytest.approx(expected.best_value, abs=1e-5)
    assert len(RunFolder(folder).read_events()) == 3


def test_gradients_are_summed_over_processes_and_untouched_parameters_stay_untouched() -> None:
    """Process 0 of 2: touched by both, by the other only, by none. AdamW skips a None gradient."""
    both, other, none = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    both.grad = torch.tensor([1.0, 2.0])
    theirs = torch.tensor([1.0, 1.0, 0.0, 10.0, 20.0, 5.0, 6.0, 0.0, 0.0])

    def reduce(flat: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        return flat + theirs

    accelerator = SimpleNamespace(num_processes=2, device=torch.device("cpu"), reduce=reduce)
    Device(accelerator, "fp32").reduce_gradients([both, other, none])
    assert both.grad.tolist() == [11, 22]
    assert other.grad is not None
    assert other.grad.tolist() == [5, 6]
    assert none.grad is None


def test_a_metric_by_name_selects() -> None:
    spec = SimpleNamespace(headline="accuracy")
    found = [
        SimpleNamespace(spec=spec, loss=0.1, metrics={"accuracy": 0.9, "f1": f1})
        for f1 in (0.2, 0.4)
    ]
    both: Any = dict(zip("ab", found, strict=True))
    assert selection_value(both, "metric") == pytest.approx(0.9)
    assert selection_value(both, "f1") == pytest.approx(0.3)
    with pytest.raises(RequestError, match=r"select='pearsn' must be .*Did you mean 'pearson'"):
        RunSettings(select="pearsn")
