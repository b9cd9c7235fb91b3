"""Where a run computes: device, precision, processes. A thin view of ``accelerate``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from mtl.engine.hardware import resolve_precision
from mtl.engine.launch import accelerator, launch
from mtl.errors import RequestError
from mtl.threads import chosen_by_user, threads_for, usable_cores


@dataclass(frozen=True)
class Device:
    """Device, resolved precision and processes of this run.

    Attributes:
        accelerator: the ``accelerate.Accelerator`` behind it; it finds the device and connects the
            processes, and knows nothing of precision (its state is one per Python process, so that
            a second run of another precision could not open it).
        precision: ``fp32`` or ``bf16``; ``auto`` is resolved here, once.
        solo: this process works by itself, whatever the others do: see :meth:`alone`.
    """

    accelerator: Any
    precision: str
    solo: bool = False

    def alone(self) -> Device:
        """The same device for work that only this process does: nothing is dealt or gathered."""
        return replace(self, solo=True)

    @property
    def torch_device(self) -> torch.device:
        return self.accelerator.device

    @property
    def rank(self) -> int:
        return 0 if self.solo else self.accelerator.process_index

    @property
    def world(self) -> int:
        return 1 if self.solo else self.accelerator.num_processes

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.accelerator.is_main_process

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 for products and the like where that is the precision; parameters stay fp32."""
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.torch_device.type, torch.bfloat16)

    def reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients over the processes, in one message.

        A parameter that this process' batch did not touch (another task's head) counts as zero;
        one that no process touched keeps no gradient, so that the optimiser leaves it alone just
        as it does in a single process.
        """
        if self.world == 1:
            return
        all_parameters = list(parameters)
        touched = torch.tensor(
            [float(p.grad is not None) for p in all_parameters], device=self.torch_device
        )
        pieces = [
            (p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1).float()
            for p in all_parameters
        ]
        flat = self.accelerator.reduce(torch.cat([touched, *pieces]), reduction="sum")
        start = len(all_parameters)
        for parameter, processes in zip(all_parameters, flat[:start].tolist(), strict=True):
            piece = flat[start : start + parameter.numel()]
            start += parameter.numel()
            if processes:
                parameter.grad = piece.view_as(parameter).to(parameter.dtype)

    def gather(self, item: Any) -> list[Any]:
        """``item`` of every process, in the order of ranks."""
        if self.world == 1:
            return [item]
        from accelerate.utils import gather_object

        return gather_object([item])

    def rng_state(self) -> dict[str, torch.Tensor]:
        """The generators' bytes of all processes, for a resume point."""
        own = {"cpu": torch.get_rng_state()}
        if self.torch_device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state(self.torch_device)
        return {
            f"{rank}.{kind}": state
            for rank, states in enumerate(self.gather(own))
            for kind, state in states.items()
        }

    def has_rng_state(self, states: Mapping[str, torch.Tensor]) -> bool:
        """Whether ``states`` holds what :meth:`set_rng_state` needs in this process."""
        kinds = ["cpu"] + (["cuda"] if self.torch_device.type == "cuda" else [])
        return all(f"{self.rank}.{kind}" in states for kind in kinds)

    def set_rng_state(self, states: Mapping[str, torch.Tensor]) -> None:
        """Take back this process' part of :meth:`rng_state`."""
        torch.set_rng_state(states[f"{self.rank}.cpu"])
        if self.torch_device.type == "cuda":
            torch.cuda.set_rng_state(states[f"{self.rank}.cuda"], self.torch_device)

    def describe(self) -> dict[str, Any]:
        """What a manifest records: device, precision, threads, processes."""
        name = self.torch_device.type
        if name == "cuda":
            name = torch.cuda.get_device_name(self.torch_device)
        return {
            "device": name,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "processes": self.world,
        }


def open_device(
    precision: str = "auto",
    *,
    hidden_size: int | None = None,
    threads: int | None = None,
    deterministic: bool = False,
) -> Device:
    """Open the device that ``accelerate`` finds (its environment and ``accelerate launch`` apply).

    Args:
        precision: ``auto``, ``fp32`` or ``bf16``.
        hidden_size: D of the model that is to compute: what says how many threads of a CPU do it
            (:mod:`mtl.threads`). None: as many as there are now.
        threads: as many instead, where this machine has them: sums of another number of threads
            differ in the last digits.
        deterministic: only deterministic kernels; on a GPU slower, and needed for bit-equal reruns.

    Raises:
        RequestError: bf16 on a device without it; a launcher's variables that make no sense; what
            the environment asks for is not installed, or the device cannot compute.
    """
    if deterministic:
        # cuBLAS reads it when its first handle is made, and torch refuses to multiply without it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=False)
        torch.backends.cudnn.benchmark = False
    local = launch().local
    device = Device(accelerator(), resolve_precision(precision))
    if device.precision == "bf16" and not _has_bf16(device.torch_device.type):
        raise RequestError(
            f"Cannot compute with precision={precision}: {device.torch_device.type} has no bf16 "
            "here. Use --set precision=fp32."
        )
    take_threads(device, hidden_size, threads, local)
    return device


def take_threads(
    device: Device, hidden_size: int | None, threads: int | None, local: int | None = None
) -> None:
    """Set the threads that :func:`open_device` set, which others may have changed since."""
    if device.torch_device.type == "cpu":
        _set_threads(hidden_size, threads, launch().local if local is None else local)


_at_first = _now = torch.get_num_threads()


def _set_threads(hidden_size: int | None, threads: int | None, local: int) -> None:
    """Set torch's threads, unless the user has: in the environment, or by a call since our last."""
    global _now
    if hidden_size is None or chosen_by_user() or torch.get_num_threads() != _now:
        return
    if threads is None or threads > usable_cores():
        threads = threads_for(hidden_size, _at_first, local)
    torch.set_num_threads(threads)
    _now = threads


def _has_bf16(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.amp.autocast_mode.is_autocast_available(kind)


def seed_everything(seed: int, purpose: str, rank: int = 0) -> None:
    """Seed torch's generators for one purpose of a run ("init", "train"), apart from the others."""
    import hashlib

    text = f"{seed}/{purpose}/{rank}".encode()
    torch.manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1)
