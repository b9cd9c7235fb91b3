"""What watches a run while it trains: its losses, and its clock."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from mtl.engine.device import Device
from mtl.engine.resume import RunState
from mtl.errors import RequestError, RunError

if TYPE_CHECKING:
    from mtl.engine.loop import Job


class LossWatch:
    """Collects losses and stops the run at one that is not finite.

    Reading a loss makes a GPU wait, so there losses are read some steps later, and always before
    anything is evaluated or stored.
    """

    def __init__(self, job: Job, device: Device, progress: RunState) -> None:
        self._job, self._device, self._progress = job, device, progress
        self._every = 1 if device.torch_device.type == "cpu" else 50
        self._pending: list[torch.Tensor] = []

    def add(self, loss: torch.Tensor) -> None:
        self._pending.append(loss)
        if len(self._pending) >= self._every:
            # `add` runs before the step counter moves on
            self._read(self._progress.step)

    def flush(self) -> None:
        self._read(self._progress.step - 1)

    def _read(self, last_step: int) -> None:
        if not self._pending:
            return
        values = torch.stack(self._pending)
        if self._device.world > 1:
            values = self._device.accelerator.reduce(values, reduction="sum")
        first = last_step - len(self._pending) + 1
        for offset, value in enumerate(values.tolist()):
            if not math.isfinite(value):
                settings = self._job.settings
                exact = ", or --set precision=fp32" if self._device.precision != "fp32" else ""
                raise RunError(
                    f"{self._job.label}: the training loss became {value} at step {first + offset}"
                    f" (lr={settings.lr}, batch_size={settings.batch_size}, precision="
                    f"{self._device.precision}, clip={settings.clip}, seed={self._job.seed}). "
                    f"Nothing was stored. Try a smaller --set lr=…{exact}."
                )
            self._progress.loss_sum += value
            self._progress.loss_count += 1
        self._pending.clear()


class Clock:
    """Seconds of work, and when the next resume point is due (``MTL_RESUME_SECONDS``, 30)."""

    def __init__(self, before: float = 0.0) -> None:
        self._start = time.monotonic() - before
        text = os.environ.get("MTL_RESUME_SECONDS", "30")
        try:
            self._every = float(text)
        except ValueError as error:
            raise RequestError(f"MTL_RESUME_SECONDS={text!r} must be a number.") from error
        self._last = time.monotonic()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens inside does not count; :meth:`add` says what of it does."""
        begun = time.monotonic()
        yield
        self._start += time.monotonic() - begun

    def add(self, seconds: float) -> None:
        """Count so much more."""
        self._start -= seconds

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def point_due(self) -> bool:
        if time.monotonic() - self._last < self._every:
            return False
        self._last = time.monotonic()
        return True
