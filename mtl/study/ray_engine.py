"""The Ray engine: runs of a study as tasks of a Ray cluster, or of Ray on this machine alone.

The driver hands a run over when its sources are there, as to any engine; Ray finds a machine with
the cores and the share of a GPU. What a worker says goes through an actor beside the driver. A
worker or a machine that dies loses its run, which goes back into the line; a lease on the shared
folder (:mod:`mtl.study.lease`) keeps another one from it until its holder is gone for certain.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.engine.ray_start import ANSWERS, short_error, start_ray
from mtl.errors import RequestError
from mtl.study.cells import task_files
from mtl.study.engines import Happened
from mtl.study.local import PATIENCE, THREADS, happened
from mtl.study.ray_worker import Ear, Job, probe, train
from mtl.study.sharing import Seen, check_folder, judge, leave_token
from mtl.study.work import Outcome, Places, Task
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.study.planning import StudyPlan

LOOK = 2.0
"""Seconds between two looks at the machines of the cluster."""
EMPTY = 60.0
"""Seconds without a machine after which that is said."""

PASSED = (
    *("MTL_TASKS", "MTL_MODEL", "MTL_LIMITS", "MTL_GRAPH", "MTL_RESUME_SECONDS"),
    *("MTL_LEASE_SECONDS", "MTL_DEBUG", "MTL_QUIET", "MTL_VERBOSE", "ACCELERATE_USE_CPU"),
    *("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "OMP_WAIT_POLICY"),
)
"""What of the driver's environment workers get; nothing that could hold a secret."""


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def signals_after() -> Iterator[None]:
    """Signals that come in the block are handled after it: Ray makes its own errors of them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, lambda number, _: told.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for one in told[:1]:
        signal.raise_signal(one)


@dataclass(frozen=True)
class Wanted:
    """What a run gets of a machine.

    Attributes:
        threads: cores.
        per_gpu: runs that share a GPU.
        workers: runs side by side at most; None: as many as the machines hold.
        address: of the cluster; None: Ray is started on this machine, for this study alone.
    """

    threads: int = 1
    per_gpu: int = 1
    workers: int | None = None
    address: str | None = None


class RayEngine:
    """Tasks of a Ray cluster; see :class:`mtl.study.engines.Engine`.

    Args:
        places: of the study; they are made absolute, and checked on every machine.
        files: other absolute paths that every machine must have: task files, a base's folder.

    Raises:
        RequestError: Ray is not installed or does not answer; a machine lacks the shared folder or
            has other versions; no machine has what a run wants. Nothing was begun.
    """

    def __init__(self, wanted: Wanted, places: Places, files: Sequence[str] = ()) -> None:
        self._wanted = wanted
        self._places = places
        self._running: dict[Any, tuple[set[str], int]] = {}
        """What a worker is at → the tasks that have not ended, and its slot."""
        self._nodes: tuple[float, list[dict[str, Any]]] = (0.0, [])
        self._empty: float | None = None
        self._closing = contextlib.ExitStack()
        try:
            self._open([*_folders(places), *files])
        except BaseException:
            self._closing.close()
            raise

    def _open(self, needed: Sequence[str]) -> None:
        runs = Path(str(self._places.runs))
        for folder, what in ((runs, "the runs folder"), (Path(str(self._places.zoo)), "the zoo")):
            check_folder(folder, what)
        Path(os.environ["MTL_CACHE"]).mkdir(parents=True, exist_ok=True)
        self._ray = connect(self._wanted, self._closing)
        self._gpus = self._ray.cluster_resources().get("GPU", 0) > 0 and not _cpu_only()
        self.on_cpu = not self._gpus
        share = int(10_000 / self._wanted.per_gpu) / 10_000  # Ray counts in ten-thousandths
        self._train = self._ray.remote(
            num_cpus=self._wanted.threads,
            num_gpus=share if self._gpus else 0,
            max_retries=0,  # the driver puts a lost run back, and counts
        )(train)
        if not self._wanted.workers and not self.slots():
            raise RequestError(
                f"No machine of the Ray cluster has {counted(self._wanted.threads, 'core')} "
                f"{'and a GPU ' if self._gpus else ''}for a run: it has "
                f"{self._ray.cluster_resources()}. Lower --threads, start workers, or say "
                "--workers N where a cluster grows with what waits."
            )
        self._token = self._closing.enter_context(leave_token(runs))
        self._job = Job(self._token, tuple(needed), os.getcwd())
        for remark in judge(list(self._look_around()), self._token):
            print(f"note: {remark}", file=sys.stderr)
        here = self._ray.get_runtime_context().get_node_id()
        self._ear = self._ray.remote(Ear).options(num_cpus=0, **self._on(here)).remote()
        self._ray.get(self._ear.drain.remote())

    def _on(self, node: str) -> dict[str, Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}

    def _look_around(self) -> Iterator[Seen]:
        """What every machine that could take a run has."""
        ask = self._ray.remote(num_cpus=0, max_retries=0)(probe)
        asking = [
            (node["NodeManagerHostname"], ask.options(**self._on(node["NodeID"])).remote(self._job))
            for node in self._alive()
            if self._slots_of(node)
        ]
        for host, asked in asking:
            try:
                yield self._ray.get(asked, timeout=PATIENCE * 6)
            except self._ray.exceptions.RayError as error:
                yield Seen(host, (f"cannot be asked: {short_error(error).rstrip('.')}",))

    def describe(self) -> str:
        """Machines, and what a run gets of them."""
        on = f"1/{self._wanted.per_gpu} GPU" if self._gpus else "CPU"
        where = self._wanted.address or "this machine"
        machines = counted(sum(1 for node in self._alive() if self._slots_of(node)), "machine")
        return (
            f"Ray at {where}: {machines}, {self.slots()} × {on}, {self._wanted.threads} thread(s) "
            "each"
        )

    def slots(self) -> int:
        """Runs that go on side by side, by what the machines have now."""
        if self._wanted.workers:
            return self._wanted.workers
        return sum(map(self._slots_of, self._alive()))

    def _alive(self) -> list[dict[str, Any]]:
        when, nodes = self._nodes
        if time.monotonic() - when > LOOK or not nodes:
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
            self._nodes = (time.monotonic(), nodes)
        return nodes

    def _slots_of(self, node: dict[str, Any]) -> int:
        has = node["Resources"]
        cores = int(has.get("CPU", 0) // self._wanted.threads)
        return min(cores, int(has.get("GPU", 0) * self._wanted.per_gpu)) if self._gpus else cores

    @signals_after()
    def free(self) -> int:
        """How many workers take something now."""
        return self.slots() - len(self._running)

    @signals_after()
    def submit(self, *tasks: Task) -> None:
        """Hand tasks to Ray, which finds a machine for them."""
        taken = {slot for _, slot in self._running.values()}
        slot = next(n for n in range(1, len(taken) + 2) if n not in taken)
        places = replace(self._places, tasks=tasks[0].places.tasks)
        there = [replace(task, places=places) for task in tasks]
        begun = self._train.options(name=tasks[0].cell.label).remote(
            there, self._job, self._ear, str(slot)
        )
        self._running[begun] = ({task.key for task in tasks}, slot)

    @signals_after()
    def wait(self, seconds: float) -> list[Happened]:
        """What workers say, what ended, and what was lost."""
        if not self._running:
            time.sleep(seconds)
            return self._said_of_none()
        pending = list(self._running)
        self._ray.wait(pending, num_returns=1, timeout=seconds)
        ready, _ = self._ray.wait(pending, num_returns=len(pending), timeout=0)
        found = self._drained()
        for one in ready:
            keys, slot = self._running.pop(one)
            found += self._over(one, keys, str(slot))
        return found

    def _over(self, one: Any, keys: set[str], slot: str) -> list[Happened]:
        """What became of those that had not ended before their worker did."""
        errors = self._ray.exceptions
        try:
            ended = [outcome for outcome in self._ray.get(one) if outcome.key in keys]
            return [Happened("ended", each.key, slot, outcome=each) for each in ended]
        except errors.OutOfMemoryError:
            lost = "its worker took more memory than there is"
        except errors.RayTaskError as error:  # before the run: the machine cannot be used
            failed = [Outcome(key, "failed", error=short_error(error)) for key in sorted(keys)]
            return [Happened("ended", each.key, slot, outcome=each) for each in failed]
        except errors.RayError as error:
            lost = f"its worker died ({type(error).__name__})"
        return [Happened("lost", key, slot, text=lost) for key in sorted(keys)]

    def _drained(self) -> list[Happened]:
        """What workers said; the end of a worker's last task comes with the worker's own."""
        told: list[tuple[str, Any, str, str]] = []
        with contextlib.suppress(self._ray.exceptions.RayError):
            told = self._ray.get(self._ear.drain.remote(), timeout=ANSWERS)
        at = {key: keys for keys, _ in self._running.values() for key in keys}
        found = []
        for what, value, key, worker in told:
            if key and key not in at:
                continue
            if what == "ended":
                if len(at[key]) == 1:
                    continue
                at.pop(key).discard(key)
            found.append(happened(what, value, key, worker))
        return found

    def _said_of_none(self) -> list[Happened]:
        """A remark where there has been no machine for long."""
        if self.slots():
            self._empty = None
            return []
        if self._empty is None:
            self._empty = time.monotonic() + EMPTY
        if time.monotonic() < self._empty:
            return []
        self._empty = float("inf")
        return [Happened("said", "", "", text="Ray has no machine left; waiting for one.")]

    @signals_after()
    def close(self) -> None:
        """Stop all tasks: their runs keep their resume points."""
        if self._running:
            for one in self._running:
                with contextlib.suppress(Exception):
                    self._ray.cancel(one, force=False)
            left = list(self._running)
            self._ray.wait(left, num_returns=len(left), timeout=PATIENCE)
            self._running = {}
        self._closing.close()


def connect(wanted: Wanted, closing: contextlib.ExitStack) -> Any:
    """Ray, connected; ``closing`` disconnects it.

    Raises:
        RequestError: it is not installed, does not answer, or does not let us in.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # ours have an environment of their own: the workers that Ray starts ahead would serve nobody
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    environment = {name: str(wanted.threads) for name in THREADS}
    environment["TOKENIZERS_PARALLELISM"] = "false" if wanted.threads == 1 else "true"
    environment |= {name: os.environ[name] for name in PASSED if name in os.environ}
    environment["MTL_CACHE"] = os.environ["MTL_CACHE"]
    # Ray prints what befalls its machines; standard output is for what the study tells at its end
    closing.enter_context(contextlib.redirect_stdout(sys.stderr))
    ray = start_ray(wanted.address, cores=_cores(wanted), environment=environment, who="driver")
    closing.callback(ray.shutdown)
    return ray


def _cores(wanted: Wanted) -> int:
    from mtl.threads import usable_cores

    return wanted.workers * wanted.threads if wanted.workers else usable_cores()


def _cpu_only() -> bool:
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}


def _folders(places: Places) -> list[str]:
    named = (places.zoo, places.runs, os.environ["MTL_CACHE"], places.data_root)
    return [str(path) for path in named if path]


def absolute(places: Places) -> Places:
    """``places`` as they are found from any folder; the cache by ``MTL_CACHE``, likewise.

    Raises:
        RequestError: there is no home for the cache.
    """
    from mtl.engine.folder import runs_folder
    from mtl.files import cache_folder
    from mtl.zoo import open_zoo

    cache = cache_folder()
    if cache is None:
        raise RequestError("There is no home folder for the cache: name one with MTL_CACHE.")
    os.environ["MTL_CACHE"] = str(cache.absolute())
    root = places.data_root or os.environ.get("MTL_DATA_ROOT")
    return replace(
        places,
        zoo=str(open_zoo(places.zoo).root.absolute()),
        runs=str(runs_folder(places.runs).absolute()),
        data_root=str(Path(root).expanduser().absolute()) if root else None,
    )


def open_ray(
    plan: StudyPlan, threads: int, per_gpu: int, workers: int | None, address: str | None
) -> RayEngine:
    """The engine for a study, its places and files checked. Raises as :class:`RayEngine`."""
    cells = [node.cell for node in plan.nodes.values()]
    named = [*task_files(cells), *(cell.model or "" for cell in cells)]
    named += [os.environ.get("MTL_MODEL", ""), *os.environ.get("MTL_TASKS", "").split(os.pathsep)]
    files = [str(Path(name).absolute()) for name in dict.fromkeys(named) if os.path.exists(name)]
    wanted = Wanted(threads, per_gpu, workers, address)
    return RayEngine(wanted, absolute(plan.desk.places), files)
