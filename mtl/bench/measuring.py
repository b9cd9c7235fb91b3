"""How a step is measured: interleaved timing, launches, saved activations, peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Step = Callable[[], None]


class CountCalls(TorchDispatchMode):
    """Counts ATen calls."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def compile_problem(device: torch.device) -> str:
    """Why ``torch.compile`` cannot work on ``device`` here; empty where it can.

    It needs a C++ compiler on a CPU and Triton (with a C compiler) on a GPU, and says so only when
    it first compiles, deep inside.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # whatever stands in the way of the compiler
        return " ".join(str(error).split("\n\n")[0].split())[:200]
    return ""


def saved_bytes(encoder: Any, batch: dict[str, Tensor], *, bf16: bool = False) -> int:
    """Bytes of unique storages kept for the backward pass, weights and buffers excluded.

    With autocast the casts of weights count: they are kept, too.
    """
    own = {t.untyped_storage().data_ptr() for t in [*encoder.parameters(), *encoder.buffers()]}
    seen: dict[int, int] = {}
    # Storages must stay alive while they are counted, or an address could be used twice.
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    cast = torch.autocast(batch["input_ids"].device.type, torch.bfloat16, enabled=bf16)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), cast:
        encoder(**batch).last_hidden_state[:, 0].square().mean()
    return sum(seen.values())


def interleaved(
    steps: Mapping[str, Step],
    rounds: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Fastest seconds of every step over ``rounds`` rounds that run each once; one warms up.

    ``clock`` may be ``time.process_time`` on a CPU that is busy with other work.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            _wait(device)
            start = clock()
            step()
            _wait(device)
            if number:
                times[name].append(clock() - start)
    return {name: min(values) for name, values in times.items()}


def peak_bytes(step: Step, device: torch.device) -> int:
    """The most memory that one step holds beyond what it starts with."""
    if device.type == "cuda":
        _wait(device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        _wait(device)
        return torch.cuda.max_memory_allocated() - before
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    now = peak = 0
    for _, change in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        now += change
        peak = max(peak, now)
    return peak


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def launches(step: Step, device: torch.device) -> int:
    """Kernel launches of one step; on a CPU, ATen calls, which stand in for them."""
    if device.type != "cuda":
        with CountCalls() as counter:
            step()
        return counter.calls
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        step()
        _wait(device)
    # cudaLaunchKernel, cudaLaunchKernelExC, cuLaunchKernel, and of a graph as a whole
    names = [event.name() for event in profiler.profiler.kineto_results.events()]  # type: ignore[union-attr]
    return sum("LaunchKernel" in name or "GraphLaunch" in name for name in names)
