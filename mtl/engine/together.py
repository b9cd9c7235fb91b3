"""Several runs on one frozen encoder, step by step side by side.

Each run is what it is alone (:func:`mtl.engine.loop.training`): its batches, schedule, evaluations,
patience, resume points, generators. Only the steps themselves are taken for all at once
(:mod:`mtl.engine.shared_step`). A run that ends or fails leaves, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from mtl.backbone.beside_sites import share_frozen
from mtl.engine.device import Device
from mtl.engine.loop import Job, Outcome, Step, Taken, take_step, training
from mtl.engine.progress import listening, one_bar
from mtl.engine.shared_step import SharedStep, check_fit
from mtl.engine.tracking import GivenUpError
from mtl.errors import MtlError

Ended = Outcome | MtlError | GivenUpError


def train_together(
    jobs: Iterable[Job],
    device: Device,
    ended: Callable[[int, Ended], None],
    step: Callable[[int, int, int], object] | None = None,
) -> None:
    """Train the jobs side by side, each to the result it has alone but for the order of sums.

    Args:
        jobs: taken one after the other; where they are made as they are taken, what is frozen is
            in memory once, and once more for the one that is being made.
        ended: told of each job, by its number, as soon as it is trained, has failed or was given
            up by its listener, and all have begun; the selected state of one that is trained is
            loaded then.
        step: told of every step: the job's number, its steps done, and planned; None: as
            :func:`mtl.engine.progress.listening` says, whoever's they are.

    Raises:
        UnfitError: they cannot go side by side. What has not ended is to be built anew, and goes
            by itself, from its resume point where there is one.
    """
    group = _Group(device, ended, step)
    try:
        with one_bar():
            group.begin(jobs)
            while group.steps:
                group.round()
    finally:
        group.release()


@dataclass
class _Course:
    """A run on its way, and torch's generators as they are between its steps."""

    job: Job
    course: Generator[Step, Taken, Outcome]
    draws: dict[str, Tensor]


class _Group:
    def __init__(
        self,
        device: Device,
        ended: Callable[[int, Ended], None],
        step: Callable[[int, int, int], object] | None,
    ) -> None:
        self._device, self._ended, self._step = device, ended, step
        self._courses: list[_Course] = []
        self._shared: SharedStep | None = None
        self.steps: dict[int, Step] = {}
        """The step that each run asks for, while it has not ended."""

    def begin(self, jobs: Iterable[Job]) -> None:
        """Bring every run to its first step; those that have none any more end then."""
        start = self._device.rng_state()  # each seeds them itself
        over: list[tuple[int, Ended]] = []
        tell, self._ended = self._ended, lambda number, what: over.append((number, what))
        for number, job in enumerate(jobs):
            check_fit(job, self._device)
            self._courses.append(_Course(job, training(job, self._device), start))
            self._advance(number, None)
            if number in self.steps:
                first = self._courses[next(iter(self.steps))].job
                share_frozen(first.attached.network, job.attached.network)
        self._ended = tell
        self._lay_out()
        for number, what in over:
            tell(number, what)

    def round(self) -> None:
        """One step of every run that is left."""
        started = time.monotonic()
        courses = [self._courses[number] for number in self.steps]
        steps = list(self.steps.values())
        if self._shared is None:
            (course,) = courses
            self._device.set_rng_state(course.draws)
            losses = [take_step(course.job, self._device, steps[0])]
            course.draws = self._device.rng_state()
        else:
            losses, drawn = self._shared.take(steps, [course.draws for course in courses])
            for course, state in zip(courses, drawn, strict=True):
                course.draws = state
        seconds = (time.monotonic() - started) / len(steps)
        for number, loss in zip(list(self.steps), losses, strict=True):
            self._advance(number, (loss, seconds))
        if len(self.steps) != len(steps):
            self._lay_out()

    def release(self) -> None:
        """Let every module and parameter be its run's own again."""
        if self._shared is not None:
            self._shared.release()
            self._shared = None

    def _lay_out(self) -> None:
        """Stack what is left of the runs; one alone needs no stack."""
        self.release()
        if len(self.steps) > 1:
            jobs = [self._courses[number].job for number in self.steps]
            optimisers = [step.optimiser for step in self.steps.values()]
            self._shared = SharedStep(jobs, optimisers, self._device)

    def _advance(self, number: int, taken: Taken | None) -> None:
        """Let a run go on to its next step, with torch's generators as it left them."""
        course = self._courses[number]
        self._device.set_rng_state(course.draws)
        ended: Ended
        hears = nullcontext() if self._step is None else listening(partial(self._step, number))
        try:
            with hears:
                self.steps[number] = course.course.send(taken)  # type: ignore[arg-type]
            course.draws = self._device.rng_state()
            return
        except StopIteration as stop:
            ended = stop.value
        except (MtlError, GivenUpError) as error:
            ended = error
        self.steps.pop(number, None)
        self._ended(number, ended)
