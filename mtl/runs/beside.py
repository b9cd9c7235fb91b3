"""Which runs go side by side on one frozen encoder, and carrying them out so.

Runs fit that are of one kind and method on one base, with the same settings of the method (where
its tensors start aside), the same number of sources, and one precision. They may differ in task,
rows, seed, sources, learning rate, batch size, length and selection: each keeps its own. Whether
their modules can answer together the engine finds out (:mod:`mtl.engine.together`); where they
cannot, they go one by one.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mtl.errors import MtlError, RequestError, RunError
from mtl.files import sha256_json
from mtl.methods.method import settings_dict
from mtl.words import printable_lines

if TYPE_CHECKING:
    from mtl.engine import Device, Job, RunFolder, RunSettings
    from mtl.runs.run import Run
    from mtl.runs.workspace import Workspace
    from mtl.zoo import Entry

STARTS = ("init_scale", "init_std")
"""Settings of a method that say where its tensors start, and nothing else."""
AUTO = "auto"
AUTO_RUNS = 8
"""How many runs ``auto`` lets go together where that pays."""
AUTO_HIDDEN = 384
"""The largest hidden size at which it is known to pay on a CPU: at D = 128 a step takes 0.5 to 0.9
of one alone, at 384 0.8 to 0.95 (``python benchmarks/side_by_side.py``). No GPU was measured."""


def parse_beside(text: str) -> int:
    """``--side-by-side``: a number of runs, or ``auto`` as 0.

    Raises:
        RequestError: neither.
    """
    if text == AUTO:
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise RequestError(
            f"--side-by-side {text} must be {AUTO}, or how many runs go together, 1 to 64."
        )
    return int(text)


def group_key(run: Run) -> str | None:
    """Equal for runs that may go together; None: this one goes by itself."""
    if run.joint:
        return None
    settings = settings_dict(run.method_settings)
    return sha256_json(
        {
            "kind": run.kind,
            "method": run.method,
            "base": run.backbone.base.fingerprint,
            "held": run.settings.base_precision,
            "precision": run.settings.precision,
            "settings": {key: value for key, value in settings.items() if key not in STARTS},
            "sources": len(run.parents),
        }
    )


def at_once(settings: RunSettings, hidden_size: int, workspace: Workspace) -> int:
    """:func:`most_beside` of runs with ``settings`` on a base of ``hidden_size``, here."""
    if workspace.beside == 1:
        return 1
    from mtl.engine import open_device

    device = open_device(
        settings.precision, hidden_size=hidden_size, deterministic=workspace.deterministic
    )
    return most_beside(hidden_size, workspace.beside, device)


def most_beside(hidden_size: int, asked: int, device: Device) -> int:
    """:func:`as_many_as_pay` on ``device``."""
    if device.world > 1:
        return 1
    return as_many_as_pay(hidden_size, asked, on_cpu=device.torch_device.type == "cpu")


def as_many_as_pay(hidden_size: int, asked: int, *, on_cpu: bool) -> int:
    """How many runs go together: as asked, or where ``auto`` (0) was, what pays."""
    if asked:
        return asked
    return AUTO_RUNS if on_cpu and hidden_size <= AUTO_HIDDEN else 1


def goes_beside(run: Run, asked: int, *, on_cpu: bool) -> bool:
    """Whether a planned run would go with others that fit, where there are some."""
    pays = as_many_as_pay(run.backbone.base.hidden_size, asked, on_cpu=on_cpu) > 1
    return pays and group_key(run) is not None


Held = tuple["Run", "RunFolder", "Workspace"]
"""A run, its folder, which this process holds, and the workspace of its command."""


def carry_out_beside(
    runs: Sequence[Held],
    device: Device,
    ended: Callable[[int, Entry | MtlError], None],
    step: Callable[[int, int, int], object] | None = None,
) -> None:
    """Train, test and store the runs, from their resume points where there are some.

    Args:
        ended: told of each by its place, its entry or why there is none, as soon as that is known.
        step: told of every step: the run's place, its steps done, and planned.

    Raises:
        RequestError: what would end all of them alike.
        UnfitError: they cannot go side by side; who has not ended is to go by itself.
    """
    from mtl.engine.together import Ended, train_together
    from mtl.engine.tracking import GivenUpError
    from mtl.runs.executing import finish, prepare, tracked

    with ExitStack() as stack:
        prepared, places = [], []

        def jobs() -> Iterator[Job]:
            for place, (run, folder, workspace) in enumerate(runs):
                tracker = stack.enter_context(tracked(run, workspace))
                try:
                    prepared.append(prepare(run, workspace, device, folder, tracker))
                except RunError as error:
                    ended(place, error)
                    continue
                places.append(place)
                yield prepared[-1].job

        def trained(number: int, outcome: Ended) -> None:
            place = places[number]
            assert not isinstance(outcome, GivenUpError)  # a tracker gives nothing up
            if isinstance(outcome, RequestError):
                raise outcome
            if isinstance(outcome, MtlError):
                ended(place, outcome)
                return
            told = {"side_by_side": len(prepared)} if len(prepared) > 1 else {}
            try:
                entry = finish(prepared[number], runs[place][2], device, outcome, told)
            except RunError as error:
                ended(place, error)
                return
            assert entry is not None
            ended(place, entry)

        def stepped(number: int, done: int, total: int) -> None:
            if step is not None:
                step(places[number], done, total)

        train_together(jobs(), device, trained, None if step is None else stepped)


def say_unfit(what: str, count: int, error: Exception) -> None:
    """Say why ``count`` of them go one by one."""
    text = f"note: {count} {what} go one by one, not side by side: {error}."
    print(printable_lines(text), file=sys.stderr)


class Fitting:
    """Which of some runs go together; each is asked only once what it may go with."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._keys = [group_key(run) for run in runs]
        self._left: dict[str, deque[int]] = {}
        for place, key in enumerate(self._keys):
            if key is not None:
                self._left.setdefault(key, deque()).append(place)

    def take(self, first: int, most: int, is_open: Callable[[int], bool]) -> list[int]:
        """A run and others that go with it, ``most`` in all, by their places and in their order.

        Args:
            is_open: whether another one is to go; none is asked about twice, in all calls.
        """
        key, chosen = self._keys[first], [first]
        left = self._left[key] if key is not None else deque()
        while left and len(chosen) < most:
            place = left.popleft()
            if place != first and is_open(place):
                chosen.append(place)
        return chosen
