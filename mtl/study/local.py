"""The local engine: worker processes on this machine, one per GPU, or some on the CPU.

A worker is a fresh process (spawned, so it inherits no threads and no state of torch). It keeps the
base loaded and the data read between tasks. The driver's death, a signal from it, or an end of the
pipe ends it; its run keeps the resume point.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from mtl.study.engines import Happened
from mtl.study.executing import execute_task, unheld
from mtl.study.work import Desk, Outcome, Task

if TYPE_CHECKING:
    from mtl.runs import Run

EVERY = 0.2
"""Seconds between two steps that a worker tells of."""
PATIENCE = 20
"""Seconds that a worker has to leave."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass
class _Worker:
    name: str
    process: Any
    pipe: Connection
    task: Task | None = None
    model: str | None = None


class LocalEngine:
    """Workers on this machine; see :class:`mtl.study.engines.Engine`.

    Args:
        workers: how many at most.
        threads: of a CPU, for each.
        gpus: device numbers, dealt to the workers in turn; none: the CPU.
    """

    def __init__(self, workers: int, threads: int, gpus: Sequence[str] = ()) -> None:
        self._most, self._threads, self._gpus = workers, threads, list(gpus)
        self._workers: list[_Worker] = []
        self._context = multiprocessing.get_context("spawn")
        self._born = 0

    def describe(self) -> str:
        """How many workers, and with what each computes."""
        on = f"GPU {', '.join(self._gpus)}" if self._gpus else "CPU"
        return f"{self._most} × {on}, {self._threads} thread(s) each"

    def free(self) -> int:
        """Workers that are idle or not born."""
        return self._most - sum(worker.task is not None for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Give a task to a worker, one that has its base loaded if there is one."""
        idle = [worker for worker in self._workers if worker.task is None]
        fitting = [worker for worker in idle if worker.model == task.cell.model]
        if not fitting and len(self._workers) < self._most:
            fitting = [self._start()]
        worker = (fitting or idle)[0]
        worker.task, worker.model = task, task.cell.model
        with contextlib.suppress(OSError):  # it died just now: `wait` will find it
            worker.pipe.send(task)

    def wait(self, seconds: float) -> list[Happened]:
        """What workers say, and which of them died."""
        found: list[Happened] = []
        pipes = {worker.pipe: worker for worker in self._workers}
        for ready in wait(list(pipes), timeout=seconds) if pipes else ():
            worker = pipes[ready]  # type: ignore[index]
            key = worker.task.key if worker.task else ""
            try:
                while worker.pipe.poll():
                    what, value = worker.pipe.recv()
                    found.append(happened(what, value, key, worker.name))
                    if what == "ended":
                        worker.task = None
            except (EOFError, OSError):
                self._workers.remove(worker)
                worker.process.join(PATIENCE)
                if worker.task is not None:
                    text = _death(worker.process.exitcode)
                    found.append(Happened("lost", key, worker.name, text=text))
        if not pipes:
            time.sleep(seconds)
        return found

    def close(self) -> None:
        """End all workers; who does not leave in time is killed."""
        for worker in self._workers:
            if worker.task is None:
                worker.pipe.close()
            worker.process.terminate()
        deadline = time.monotonic() + PATIENCE
        for worker in self._workers:
            worker.process.join(max(0.1, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        taken = {worker.name for worker in self._workers}
        name = next(str(n) for n in range(1, self._most + 1) if str(n) not in taken)
        changes = {key: str(self._threads) for key in THREADS}
        changes["TOKENIZERS_PARALLELISM"] = "false" if self._threads == 1 else "true"
        if self._gpus:
            changes["CUDA_VISIBLE_DEVICES"] = self._gpus[(int(name) - 1) % len(self._gpus)]
        process = self._context.Process(target=work, args=(theirs,), name=f"study-{name}")
        with _environment(changes):  # read by torch when the process loads it
            process.start()
        theirs.close()
        worker = _Worker(name, process, ours)
        self._workers.append(worker)
        return worker


def happened(what: str, value: Any, key: str, worker: str) -> Happened:
    """What a worker told, as the driver takes it."""
    if what == "ended":
        return Happened(what, key, worker, outcome=value)
    if what == "step":
        return Happened(what, key, worker, done=value[0], total=value[1])
    return Happened(what, key, worker, text=str(value))


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"its worker died of {signal.Signals(-code).name}"
    return f"its worker ended with exit code {code}"


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def work(pipe: Connection) -> None:
    """What a worker does: tasks from the pipe, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's, which tells us
    signal.signal(signal.SIGTERM, _leave)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()
    tell = _Teller(pipe)
    sys.stderr = Lines(tell)  # type: ignore[assignment]
    sys.stdout = Lines(tell)  # type: ignore[assignment]
    desk: Desk | None = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task: Task = pipe.recv()
            tell("begun", "")
            if desk is None or desk.places != task.places:
                desk = Desk(task.places)
            tell("ended", run_told(task, desk, tell))


def run_told(
    task: Task,
    desk: Desk,
    tell: Callable[[str, Any], None],
    *,
    every: float = EVERY,
    holding: Callable[[Run], AbstractContextManager[object]] = unheld,
) -> Outcome:
    """:func:`mtl.study.executing.execute_task`, telling of a step in ``every`` seconds."""
    from mtl.engine.progress import listening

    last = 0.0

    def step(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every or done == total:
            last = now
            tell("step", (done, total))

    with listening(step):
        return execute_task(task, desk, lambda text: tell("said", text), holding)


def _leave(number: int, _: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _leave_with(parent: int) -> None:
    """End this process when its driver is gone, however that went."""
    wait([parent])
    os.kill(os.getpid(), signal.SIGTERM)


class _Teller:
    """Sends to the driver; one message at a time."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def __call__(self, what: str, value: Any) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send((what, value))


class Lines:
    """Standard error of a worker: whole lines go to the driver, which shows them."""

    encoding = "utf-8"

    def __init__(self, tell: Callable[[str, Any], None]) -> None:
        self._tell, self._begun = tell, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                self._tell("said", line)
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def usable_gpus() -> list[str]:
    """The GPUs that a run may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    from mtl.engine.hardware import no_gpu

    if no_gpu() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}:
        return []
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(number) for number in range(count)]
