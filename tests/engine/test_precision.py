"""Precision belongs to a run, not to the Python process: fp32 and bf16 one after the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_bench import SPEC, events, job

from mtl.data import Passes
from mtl.engine import evaluate, open_device, train
from mtl.engine.feed import to_device
from mtl.engine.hardware import resolve_precision
from mtl.engine.optimise import Optimiser
from mtl.errors import RequestError


def test_one_process_runs_both_precisions(tmp_path: Path) -> None:
    found: dict[str, list[Any]] = {}
    for turn, precision in enumerate(("fp32", "bf16", "fp32")):
        run = job(tmp_path / str(turn), dropout=0.0)
        device = open_device(precision)
        assert device.describe()["precision"] == precision
        train(run, device)
        assert all(p.dtype == torch.float32 for p in run.attached.network.parameters())
        found.setdefault(precision, []).append(events(run))
        again = evaluate(run.attached, run.dev[SPEC.id], device, Passes(rows=16))
        assert again.logits.dtype.name == "float32"
        assert again.loss < 0.7
    assert found["fp32"][0] == found["fp32"][1]
    assert found["fp32"][0] != found["bf16"][0]
    for one, other in zip(found["fp32"][0], found["bf16"][0], strict=True):
        assert one["dev_loss"] == pytest.approx(other["dev_loss"], abs=0.03)


def test_what_the_environment_says_of_precision_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``accelerate launch --mixed_precision`` must not decide what a run's hash does not know."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with open_device("fp32").autocast():
        assert not torch.is_autocast_enabled("cpu")
    with open_device("bf16").autocast():
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16


@pytest.mark.parametrize(
    ("native", "told_cpu", "expected"),
    [(True, "", "bf16"), (False, "", "fp32"), (True, "1", "fp32")],
)
def test_auto_is_bf16_on_gpus_that_compute_in_it(
    native: bool, told_cpu: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if told_cpu:
        monkeypatch.setenv("ACCELERATE_USE_CPU", told_cpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # Torch says yes for older GPUs, too, unless it is told that emulation does not count.
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: native or including_emulation,
    )
    assert resolve_precision("auto") == expected


def test_bf16_where_there_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.amp.autocast_mode, "is_autocast_available", lambda kind: False)
    with pytest.raises(RequestError, match=r"precision=bf16: cpu has no bf16.*precision=fp32"):
        open_device("bf16")


def test_deterministic_kernels_set_what_cublas_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        open_device("fp32", deterministic=True)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


class OnGpu(torch.nn.Parameter):
    """A parameter that says it is on a GPU, for what is decided by that alone."""

    is_cuda = True


def test_adam_is_fused_on_a_gpu_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = torch.optim.AdamW

    def adam(groups: Any, **options: Any) -> Any:
        made.append(options.pop("fused"))
        return real(groups, **options)

    monkeypatch.setattr(torch.optim, "AdamW", adam)
    run = job(tmp_path)
    groups = list(run.attached.groups())
    Optimiser(groups, run.settings, 10)
    for group in groups:
        for parameter in group.parameters.values():
            parameter.__class__ = OnGpu
    Optimiser(groups, run.settings, 10)
    assert made == [None, True]


def test_a_fused_state_resumes(tmp_path: Path) -> None:
    """Step counters of the fused form are tensors beside the moments; they must come back."""

    def both() -> tuple[Any, Any]:
        run = job(tmp_path, dropout=0.0)
        groups = list(run.attached.groups())
        made = Optimiser(groups, run.settings, 10)
        (adam,) = made.adams
        for group in adam.param_groups:
            group["fused"] = True
        return run, made

    def step(run: Any, made: Any, number: int) -> None:
        batch = run.feed.collate(SPEC.id, run.feed.order(0)[number][1])
        sum(run.attached.loss(batch).values()).backward()
        made.step(number)
        made.clear()

    run, made = both()
    for number in range(3):
        step(run, made, number)
    kept = {key: value.clone() for key, value in made.state().items()}
    weights = {k: v.clone() for k, v in run.attached.network.state_dict().items()}
    step(run, made, 3)
    other, again = both()
    other.attached.network.load_state_dict(weights)
    again.load_state(kept)
    step(other, again, 3)
    for one, two in zip(
        run.attached.network.parameters(), other.attached.network.parameters(), strict=True
    ):
        assert torch.equal(one, two)


def test_batches_go_to_a_gpu_through_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: calls.append("pin") or t)
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda t, device, non_blocking: calls.append((device, non_blocking)) or t,
    )
    batch = {"input_ids": torch.ones(2, 3), "task": "toy"}
    assert to_device(batch, torch.device("cuda"))["task"] == "toy"
    assert calls == ["pin", (torch.device("cuda"), True)]
    calls.clear()
    to_device(batch, torch.device("cpu"))
    assert calls == [(torch.device("cpu"), True)]
