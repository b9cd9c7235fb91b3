"""Execute planned runs: skip what is done, resume what was killed, go on after a failure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl.engine.folder import RunFolder
from mtl.engine.launch import launch
from mtl.engine.progress import quiet
from mtl.errors import MtlError, RunError
from mtl.words import printable_lines

if TYPE_CHECKING:
    from mtl.runs.run import Run
    from mtl.runs.workspace import Workspace
    from mtl.zoo import Entry


@dataclass(frozen=True)
class Report:
    """What became of a planned run.

    Attributes:
        status: ``done``, ``skipped`` (it was in the zoo), or ``failed``.
        entry: the entry, unless it failed.
        error: why it failed.
    """

    run: Run
    status: str
    entry: Entry | None
    error: MtlError | None = None


def find_done(run: Run, workspace: Workspace) -> Entry | None:
    """The zoo's entry of this very run, or None."""
    found = workspace.zoo.entries(runhash=run.runhash)
    return found[0] if found else None


def state_of(run: Run, workspace: Workspace) -> str:
    """``done``, ``interrupted`` (there is a resume point) or ``missing``: for ``--dry-run``."""
    if find_done(run, workspace) is not None:
        return "done"
    folder = RunFolder(workspace.runs / run.runhash)
    return "interrupted" if folder.point.is_file() else "missing"


def execute(run: Run, workspace: Workspace) -> Report:
    """Run ``run`` to its entry in the zoo.

    Finished already: skipped. Interrupted: resumed. Training done but not stored: stored.

    Raises:
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
    with folder.lock(f"run {run.label}") if device.main else nullcontext():
        done = find_done(run, workspace) if device.main else None
        if done is not None:  # another process has finished it just now
            return Report(run, "skipped", done)
        stored = carry_out(run, workspace, device, folder)
    return Report(run, "done", stored or find_done(run, workspace))


def execute_all(
    runs: Sequence[Run],
    workspace: Workspace,
    finished: Callable[[Entry], object] | None = None,
) -> list[Report]:
    """Execute runs one after the other; one that fails does not stop the others.

    ``finished`` is called with the entry of every run as soon as it is in the zoo.

    A request that is wrong (exit code 2) stops everything: the others would fail alike. So does a
    zoo that cannot be written, and it does so before anything trains.
    """
    _try_zoo(runs, workspace)
    reports = []
    for number, run in enumerate(runs, start=1):
        try:
            report = execute(run, workspace)
        except RunError as error:
            report = Report(run, "failed", None, error)
            print(printable_lines(f"error: {error}"), file=sys.stderr)
        if not quiet() and not (sys.stderr.isatty() and len(runs) == 1) and launch().rank == 0:
            line = f"[{number}/{len(runs)}] {run.label}: {_what_became(report)}"
            print(line, file=sys.stderr, flush=True)
        reports.append(report)
        if finished is not None and report.entry is not None:
            finished(report.entry)
    return reports


def _what_became(report: Report) -> str:
    """One line on a run that is over."""
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


def _try_zoo(runs: Sequence[Run], workspace: Workspace) -> None:
    """Make and remove a temporary where the first missing entry will stand."""
    missing = next((run for run in runs if find_done(run, workspace) is None), None)
    if missing is not None:
        with workspace.zoo.stage(missing.ref(workspace.zoo)):
            pass
