"""How OpenMP's threads wait, and how many of them a model is worth.

torch's products run on a team of OpenMP threads. Between two products the team spins by default
(GNU libgomp, which torch's Linux wheels bring: 300,000 turns), which keeps a core busy with
nothing; where two processes share the cores, each waits for a thread that the other one's spinning
keeps from running. ``OMP_WAIT_POLICY=PASSIVE`` lets waiting threads sleep (libgomp: no turn at all;
LLVM's and Intel's libomp: block time 0). The library reads it once, when torch is loaded, so it is
set as soon as ``mtl`` is imported (``docs/benchmarks.md`` has what it saves).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""What says how threads wait; who sets one of them has chosen."""

COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What says how many there are; likewise."""

TINY = 256
"""Up to this hidden size a model computes in one thread: its products are too small to be worth
handing out (measured: ``benchmarks/threads.py``)."""


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting OpenMP threads sleep, unless the user has said how they wait.

    Without effect in a process that has loaded torch already; its children are told all the same.
    """
    if not any(environment.get(name) for name in WAITING):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chosen_by_user(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment says how many threads there are."""
    return any(environment.get(name) for name in COUNTS)


def threads_for(hidden_size: int, available: int, processes: int = 1) -> int:
    """Threads for a model of ``hidden_size``, where ``processes`` share ``available`` of them."""
    return 1 if hidden_size <= TINY else max(1, available // max(1, processes))
