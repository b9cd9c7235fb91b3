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
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from mtl.study.engines import Happened
from mtl.study.executing import Holding, execute_beside, execute_task, unheld
from mtl.study.work import Desk, Outcome, Task

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
    tasks: dict[str, Task] = field(default_factory=dict)
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
        self.on_cpu = not self._gpus

    def describe(self) -> str:
        """How many workers, and with what each computes."""
        on = f"GPU {', '.join(self._gpus)}" if self._gpus else "CPU"
        return f"{self._most} × {on}, {self._threads} thread(s) each"

    def free(self) -> int:
        """Workers that are idle or not born."""
        return self._most - sum(bool(worker.tasks) for worker in self._workers)

    def submit(self, *tasks: Task) -> None:
        """Give tasks to a worker, one that has their base loaded if there is one."""
        idle = [worker for worker in self._workers if not worker.tasks]
        fitting = [worker for worker in idle if worker.model == tasks[0].cell.model]
        if not fitting and len(self._workers) < self._most:
            fitting = [self._start()]
        worker = (fitting or idle)[0]
        worker.tasks = {task.key: task for task in tasks}
        worker.model = tasks[0].cell.model
        with contextlib.suppress(OSError):  # it died just now: `wait` will find it
            worker.pipe.send(tasks)

    def wait(self, seconds: float) -> list[Happened]:
        """What workers say, and which of them died."""
        found: list[Happened] = []
        pipes = {worker.pipe: worker for worker in self._workers}
        for ready in wait(list(pipes), timeout=seconds) if pipes else ():
            worker = pipes[ready]  # type: ignore[index]
            try:
                while worker.pipe.poll():
                    what, value, key = worker.pipe.recv()
                    found.append(happened(what, value, key, worker.name))
                    if what == "ended":
                        worker.tasks.pop(key, None)
            except (EOFError, OSError):
                self._workers.remove(worker)
                worker.process.join(PATIENCE)
                text = _death(worker.process.exitcode) if worker.tasks else ""
                for key in worker.tasks:
                    found.append(Happened("lost", key, worker.name, text=text))
        if not pipes:
            time.sleep(seconds)
        return found

    def close(self) -> None:
        """End all workers; who does not leave in time is killed.

        One that has nothing to do leaves when its pipe ends. No signal hurries it: that would cut
        off its way out, on which it gives semaphores back (those of tqdm's bars, which ``joblib``
        has the system call ``loky``).
        """
        for worker in self._workers:
            if worker.tasks:
                worker.process.terminate()
            else:
                worker.pipe.close()
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
    sys.stderr = Lines(partial(tell, "said"))  # type: ignore[assignment]
    sys.stdout = Lines(partial(tell, "said"))  # type: ignore[assignment]
    desk: Desk | None = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            tasks: Sequence[Task] = pipe.recv()
            if desk is None or desk.places != tasks[0].places:
                desk = Desk(tasks[0].places)
            run_told(tasks, desk, tell)


def run_told(
    tasks: Sequence[Task],
    desk: Desk,
    tell: Callable[[str, Any, str], None],
    *,
    every: float = EVERY,
    holding: Holding = unheld,
) -> list[Outcome]:
    """Run tasks, several side by side, and tell of it: what, its value, and the task's key.

    Args:
        every: seconds between two steps of a run that are told.
    """
    from mtl.engine.progress import listening

    last: dict[str, float] = {}
    found: list[Outcome] = []

    def step(key: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - last.get(key, 0.0) >= every or done == total:
            last[key] = now
            tell("step", (done, total), key)

    def ended(outcome: Outcome) -> None:
        found.append(outcome)
        tell("ended", outcome, outcome.key)

    def say(text: str) -> None:
        tell("said", text, "")

    for task in tasks:
        tell("begun", "", task.key)
    if len(tasks) > 1:
        execute_beside(tasks, desk, ended, step, say, holding)
    else:
        with listening(partial(step, tasks[0].key)):
            ended(execute_task(tasks[0], desk, say, holding))
    return found


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

    def __call__(self, what: str, value: Any, key: str = "") -> None:
        with self._lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send((what, value, key))


class Lines:
    """Standard error of a worker: whole lines go to the driver, which shows them."""

    encoding = "utf-8"

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say, self._begun = say, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                self._say(line)
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
