"""What runs the tasks of a study: the seam between the driver and its engines.

The driver knows the graph, an engine knows processes. A task goes in, and what happens to it comes
out as :class:`Happened`; the last of a task is ``ended`` or ``lost``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mtl.study.work import Outcome, Task


@dataclass(frozen=True)
class Happened:
    """Something that an engine tells of a task.

    Attributes:
        what: ``begun``, ``step``, ``said`` (a remark, as ``text``), ``ended`` (with ``outcome``),
            or ``lost``: its worker died, as ``text`` says; the task may be submitted again.
        key: of the task; empty for a remark.
        worker: name of the worker.
        done, total: steps.
    """

    what: str
    key: str
    worker: str
    text: str = ""
    done: int = 0
    total: int = 0
    outcome: Outcome | None = None


class Engine(Protocol):
    """Runs tasks in workers, each by :func:`mtl.study.executing.execute_task`.

    Attributes:
        on_cpu: whether it computes on CPUs.
    """

    on_cpu: bool

    def describe(self) -> str:
        """What it computes with, in a few words."""
        ...

    def free(self) -> int:
        """How many workers take something now."""
        ...

    def submit(self, *tasks: Task) -> None:
        """Take a task, or several for one worker, which trains them side by side on one encoder
        (:func:`mtl.study.executing.execute_beside`). Only while :meth:`free` is above 0.
        """
        ...

    def wait(self, seconds: float) -> Sequence[Happened]:
        """What happened since; waits for something as long as ``seconds``."""
        ...

    def close(self) -> None:
        """Stop all workers: they keep their resume points and clear their temporaries away."""
        ...
