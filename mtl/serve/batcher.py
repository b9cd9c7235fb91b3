"""Requests that wait, put together into batches for one worker thread.

The worker takes what waits as soon as it is free. Only where it would be idle does it wait for
more: until there is a full batch, or the oldest request has waited for ``Bounds.latency``. So
requests of a busy server share passes without waiting for that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mtl.errors import RunError

if TYPE_CHECKING:
    from mtl.predict.answers import Answers
    from mtl.predict.many import Asked
    from mtl.serve.bounds import Bounds

_log = logging.getLogger("mtl")


class BusyError(RunError):
    """The queue is full. ``seconds``: when to come again."""

    def __init__(self, waiting: int, most: int, seconds: int) -> None:
        super().__init__(
            f"{waiting} rows wait and at most {most} may; ask again in {seconds} s, in smaller "
            "requests, or of a server with a larger --queue."
        )
        self.seconds = seconds


class StoppingError(RunError):
    """The server is about to end, and takes nothing more."""


@dataclass
class Job:
    """One HTTP request on its way.

    Attributes:
        rows: encoded rows.
        answers: set by the worker.
        since: when it was put into the queue.
        started: whether the worker is at it.
        dropped: whether nobody waits for it any more.
    """

    asked: Sequence[Asked]
    answers: Future[list[Answers]] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)
    started: bool = False
    dropped: bool = False

    @property
    def rows(self) -> int:
        return sum(len(item.encoded) * item.encoded.choices for item in self.asked)


class Batcher:
    """A queue and the thread that works it off.

    Args:
        answer: what answers the requests of a batch, in their order; called by the worker alone.
        after: called by the worker after every batch.
        note: told the requests of every batch before it is answered.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], list[Answers]],
        bounds: Bounds,
        after: Callable[[], None] = lambda: None,
        note: Callable[[Sequence[Asked]], None] = lambda asked: None,
    ) -> None:
        self._answer, self._bounds, self._after, self._note = answer, bounds, after, note
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._stopping = False
        self._speed = 100.0  # rows per second, a guess until batches were answered
        self._thread = threading.Thread(target=self._work, name="mtl-serve", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Encoded rows in the queue."""
        with self._changed:
            return sum(job.rows for job in self._jobs)

    @property
    def alive(self) -> bool:
        """Whether the worker takes requests."""
        return self._thread.is_alive() and not self._stopping

    def check(self, rows: int = 1) -> None:
        """Raises BusyError where so many rows have no room, StoppingError at the end."""
        if not self.alive:
            raise StoppingError("This server is about to end; ask another one, or again later.")
        waiting = self.waiting
        if waiting and waiting + rows > self._bounds.queue:
            seconds = max(1, round(waiting / self._speed))
            raise BusyError(waiting, self._bounds.queue, seconds)

    def put(self, job: Job) -> None:
        """Put a request into the queue. Raises as :meth:`check`."""
        with self._changed:
            self.check(job.rows)
            job.since = time.monotonic()
            self._jobs.append(job)
            self._changed.notify_all()

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Have the worker call ``function`` before its next batch."""
        future: Future[Any] = Future()
        with self._changed:
            if not self.alive:
                raise StoppingError("This server is about to end; ask another one.")
            self._calls.append((function, future))
            self._changed.notify_all()
        return future

    def stop(self) -> None:
        """Answer what waits, and end the worker."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._jobs or self._calls or self._stopping):
                    self._changed.wait()
                if not (self._jobs or self._calls):
                    return
                calls, self._calls = list(self._calls), deque()
                batch = [] if calls else self._take()
            for function, future in calls:
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
            if batch:
                self._run(batch)
            try:
                self._after()
            except Exception:  # a defect of ours: requests are answered all the same
                _log.exception("after a batch")

    def _take(self) -> list[Job]:
        """The requests of the next batch, at least one; called with the lock held."""
        bounds = self._bounds
        until = self._jobs[0].since + bounds.latency
        while sum(job.rows for job in self._jobs) < bounds.batch and not self._stopping:
            left = until - time.monotonic()
            if left <= 0 or self._calls:
                break
            self._changed.wait(left)
        batch: list[Job] = []
        rows = 0
        while self._jobs and (not batch or rows + self._jobs[0].rows <= bounds.batch):
            job = self._jobs.popleft()
            if job.dropped or not job.answers.set_running_or_notify_cancel():
                continue
            job.started = True
            batch.append(job)
            rows += job.rows
        return batch

    def _run(self, batch: Sequence[Job]) -> None:
        asked = [item for job in batch for item in job.asked]
        begun = time.monotonic()
        try:
            self._note(asked)
            found = iter(self._answer(asked))
            for job in batch:
                job.answers.set_result([next(found) for _ in job.asked])
        except Exception as error:
            if len(batch) == 1:
                batch[0].answers.set_exception(error)
                return
            # One of them is to blame: the others get their answers all the same.
            _log.warning("a batch of %d requests failed, each goes alone: %s", len(batch), error)
            for job in batch:
                if not job.answers.done():
                    self._run([job])
            return
        rows = sum(job.rows for job in batch)
        speed = rows / max(time.monotonic() - begun, 1e-4)
        self._speed = 0.8 * self._speed + 0.2 * speed
