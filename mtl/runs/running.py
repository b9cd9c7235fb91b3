"""Execute planned runs: skip what is done or held, resume what was killed, go on after failures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mtl.engine.folder import RunFolder
from mtl.engine.launch import launch
from mtl.engine.progress import quiet, write_line
from mtl.engine.tracking import SEVERAL
from mtl.errors import HeldError, MtlError, RunError
from mtl.runs.beside import Fitting, carry_out_beside, most_beside, say_unfit
from mtl.words import printable_lines
from mtl.zoo.merged import first_of
from mtl.zoo.settings import differing, settings_text

if TYPE_CHECKING:
    from mtl.runs.run import Run
    from mtl.runs.workspace import Workspace
    from mtl.zoo import Entry


@dataclass(frozen=True)
class Report:
    """What became of a planned run.

    Attributes:
        status: ``done``, ``skipped`` (it was in the zoo), ``elsewhere`` (another living process is
            at it), or ``failed``.
        entry: the entry, unless it failed or is made elsewhere.
        error: why there is none.
    """

    run: Run
    status: str
    entry: Entry | None
    error: MtlError | None = None


def find_done(run: Run, workspace: Workspace) -> Entry | None:
    """The zoo's entry of this very run, or None."""
    zoo = workspace.zoo
    here = zoo.at(run.ref(zoo))  # nearly always; of many runs, looking through a zoo adds up
    if here is not None and here.manifest.runhash == run.runhash:
        return here
    for runhash in filter(None, (run.runhash, run.former_hash)):
        if found := first_of(zoo.entries(runhash=runhash)):
            return found[0]
    return None


def execute(run: Run, workspace: Workspace, *, wait: bool = False) -> Report:
    """Run ``run`` to its entry in the zoo.

    Finished already: skipped. Interrupted: resumed. Training done but not stored: stored.

    Args:
        wait: for another process that is at it, to take its entry, or to go on where it died.

    Raises:
        HeldError: another living process is at it, and ``wait`` is not set.
        MtlError: it failed; nothing half-written is left in the zoo.
    """
    done = find_done(run, workspace)
    if done is not None:
        workspace.zoo.load_check(done)
        return Report(run, "skipped", done)
    from mtl.engine import open_device
    from mtl.runs.executing import carry_out

    device = open_device(
        run.settings.precision,
        hidden_size=run.backbone.base.hidden_size,
        deterministic=workspace.deterministic,
    )
    folder = RunFolder(workspace.runs / run.runhash)
    with ExitStack() as held:
        # the first process of a launch holds the run for all of them, and all go the same way
        first = hold(run, workspace, folder, held, wait=wait) if device.main else None
        told = device.gather(first)[0]
        if isinstance(told, RunError):
            raise told
        if told:  # another process has finished it just now
            return Report(run, "skipped", find_done(run, workspace))
        stored = carry_out(run, workspace, device, folder)
    return Report(run, "done", stored or find_done(run, workspace))


def hold(
    run: Run, workspace: Workspace, folder: RunFolder, held: ExitStack, *, wait: bool = False
) -> RunError | bool:
    """Hold a run until ``held`` is closed.

    Returns:
        Why it cannot be held; once it is, whether another process had finished it.
    """
    try:
        held.enter_context(folder.lock(f"run {run.label}", wait=wait))
    except RunError as error:
        return error
    return find_done(run, workspace) is not None


def execute_all(
    runs: Sequence[Run],
    workspace: Workspace,
    finished: Callable[[Entry], object] | None = None,
    *,
    wait: bool = False,
) -> list[Report]:
    """Execute runs one after the other; one that fails does not stop the others.

    A run that another living process is at is passed over; so several workers share one list.
    A request that is wrong (exit code 2) stops everything: the others would fail alike. So does a
    zoo that cannot be written, and it does so before anything trains.

    Runs that fit go side by side, as many as the workspace says.

    Args:
        finished: called with the entry of every run as soon as it is in the zoo.
        wait: when nothing else is left, for the runs that other processes are at.
    """
    try_zoo(runs, workspace)
    workspace = replace(workspace, beside=allowed_beside(workspace))
    reports: dict[int, Report] = {}
    alone: set[int] = set()
    """Of a group that turned out not to go side by side."""
    fitting: Fitting | None = None

    def is_open(place: int) -> bool:
        taken = place in reports or place in alone
        return not taken and find_done(runs[place], workspace) is None

    labels = [
        f"{run.label}{f' ({settings_text(own)})' if own else ''}"
        for run, own in zip(runs, apart(runs), strict=True)
    ]
    for waiting in (False, True) if wait else (False,):
        left = [n for n in range(len(runs)) if n not in reports or reports[n].status == "elsewhere"]

        def ended(number: int, report: Report) -> None:
            reports[number] = report
            if not quiet() and not (sys.stderr.isatty() and len(runs) == 1) and launch().rank == 0:
                line = f"[{number + 1}/{len(runs)}] {labels[number]}: {_what_became(report)}"
                write_line(line)
            if finished is not None and report.entry is not None:
                finished(report.entry)

        for number in left:
            if number in reports and not waiting:  # it went side by side with one before it
                continue
            if waiting and not quiet() and launch().rank == 0:
                who = getattr(reports[number].error, "who", "another process")
                print(f"{labels[number]}: waiting for {who}", file=sys.stderr, flush=True)
            asked = workspace.beside != 1 and not waiting and is_open(number)
            if asked:
                fitting = fitting or Fitting(runs)
                alone |= _try_beside(runs, number, fitting, is_open, workspace, ended)
            if number not in reports or waiting:
                ended(number, _try(runs[number], workspace, wait=waiting))
    return [reports[number] for number in range(len(runs))]


def allowed_beside(workspace: Workspace) -> int:
    """How many runs may go together; one, and that is said, where a tracker follows one alone."""
    if workspace.beside != 1 and workspace.track not in (None, *SEVERAL):
        text = f"note: runs go one by one: {workspace.track} follows one at a time."
        print(printable_lines(text), file=sys.stderr)
        return 1
    return workspace.beside


def _try_beside(
    runs: Sequence[Run],
    number: int,
    fitting: Fitting,
    is_open: Callable[[int], bool],
    workspace: Workspace,
    ended: Callable[[int, Report], None],
) -> set[int]:
    """Carry out one of ``runs`` with others that fit and are open, if there are any.

    Returns:
        Those that the engine could not take together.
    """
    from mtl.backbone.beside import UnfitError
    from mtl.engine import open_device

    first = runs[number]
    device = open_device(
        first.settings.precision,
        hidden_size=first.backbone.base.hidden_size,
        deterministic=workspace.deterministic,
    )
    most = most_beside(first.backbone.base.hidden_size, workspace.beside, device)
    chosen = fitting.take(number, most, is_open)
    with ExitStack() as held:
        mine = []
        for place in chosen:
            folder = RunFolder(workspace.runs / runs[place].runhash)
            told = hold(runs[place], workspace, folder, held)
            if told is False:  # neither another process' nor done just now
                mine.append((place, (runs[place], folder, workspace)))
        if len(mine) < 2:
            return set()

        def over(number: int, what: Entry | MtlError) -> None:
            place = mine[number][0]
            if isinstance(what, MtlError):
                write_line(printable_lines(f"error: {what}"))
                ended(place, Report(runs[place], "failed", None, what))
            else:
                ended(place, Report(runs[place], "done", what))

        try:
            carry_out_beside([each for _, each in mine], device, over)
        except UnfitError as error:
            say_unfit(f"runs of {first.method}", len(mine), error)
    return set(chosen)


def _try(run: Run, workspace: Workspace, *, wait: bool) -> Report:
    """:func:`execute`, its failure said and reported."""
    try:
        return execute(run, workspace, wait=wait)
    except HeldError as error:
        return Report(run, "elsewhere", None, error)
    except RunError as error:
        print(printable_lines(f"error: {error}"), file=sys.stderr)
        return Report(run, "failed", None, error)


def apart(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Per run the settings, and sources, that others of its task and method have otherwise."""
    return differing(
        [(run.task_id, run.method) for run in runs],
        [
            {
                **asdict(run.settings),
                **asdict(run.method_settings),
                "sources": ", ".join(p["ref"].rpartition("-")[2] for p in run.parents) or None,
            }
            for run in runs
        ],
    )


def _what_became(report: Report) -> str:
    """One line on a run that is over."""
    if isinstance(report.error, HeldError):
        return f"{report.status}, {report.error.who} is at it"
    if report.entry is None or report.status == "skipped":
        return report.status
    manifest = report.entry.manifest
    headline = manifest.task["headline"]
    dev, test = (manifest.metrics[split][headline]["value"] for split in ("dev", "test"))
    shown = " ".join(
        f"{split} {'–' if value is None else format(value, '.4f')}"
        for split, value in (("dev", dev), ("test", test))
    )
    seconds, steps = manifest.training["seconds"], manifest.training["steps"]
    return f"{report.status}, {headline} {shown}, {steps} steps, {seconds:.0f} s"


def try_zoo(runs: Sequence[Run], workspace: Workspace) -> None:
    """Make and remove a temporary where the first missing entry will stand."""
    missing = next((run for run in runs if find_done(run, workspace) is None), None)
    if missing is not None:
        with workspace.zoo.stage(missing.ref(workspace.zoo)):
            pass
