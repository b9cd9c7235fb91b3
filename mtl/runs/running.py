"""Execute planned runs: train, test, store, verify; skip what is done, resume what was killed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl.engine import (
    Device,
    EvalSet,
    Evaluation,
    Job,
    RunFolder,
    evaluate,
    open_device,
    train,
)
from mtl.engine.launch import launch
from mtl.engine.passes import eval_passes, piece_overhead
from mtl.engine.progress import quiet
from mtl.errors import MtlError, RunError
from mtl.runs.store import store_run
from mtl.zoo.names import printable_lines

if TYPE_CHECKING:
    from mtl.runs.plan import Built, Plan
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

    plan: Plan
    status: str
    entry: Entry | None
    error: MtlError | None = None


def find_done(plan: Plan, workspace: Workspace) -> Entry | None:
    """The zoo's entry of this very run, or None."""
    found = workspace.zoo.entries(runhash=plan.runhash)
    return found[0] if found else None


def state_of(plan: Plan, workspace: Workspace) -> str:
    """``done``, ``interrupted`` (there is a resume point) or ``missing``: for ``--dry-run``."""
    if find_done(plan, workspace) is not None:
        return "done"
    folder = RunFolder(workspace.runs / plan.runhash)
    return "interrupted" if folder.point.is_file() else "missing"


def execute(plan: Plan, workspace: Workspace) -> Report:
    """Run ``plan`` to its entry in the zoo.

    Finished already: skipped. Interrupted: resumed. Training done but not stored: stored.

    Raises:
        MtlError: it failed; nothing half-written is left in the zoo.
    """
    done = find_done(plan, workspace)
    if done is not None:
        workspace.zoo.load_check(done)
        return Report(plan, "skipped", done)
    device = open_device(
        plan.settings.precision,
        hidden_size=plan.backbone.base.hidden_size,
        deterministic=workspace.deterministic,
    )
    folder = RunFolder(workspace.runs / plan.runhash)
    if not device.main:
        return _execute(plan, workspace, device, folder)
    with folder.lock(f"run {plan.label}"):
        done = find_done(plan, workspace)  # another process may have finished it just now
        if done is not None:
            return Report(plan, "skipped", done)
        return _execute(plan, workspace, device, folder)


def _execute(plan: Plan, workspace: Workspace, device: Device, folder: RunFolder) -> Report:
    if device.main:
        folder.write_config(
            {"runhash": plan.runhash, "command": workspace.typed, **plan.identity()}
        )
    sets = encode_splits(plan, workspace)
    built = plan.build(plan, None)
    job = Job(
        attached=built.attached,
        feed=plan.feed({task: splits["train"].encoded for task, splits in sets.items()}),
        dev={task: sets[task]["dev"] for task in plan.selected},
        settings=plan.settings,
        seed=plan.seed,
        identity=plan.runhash,
        folder=folder,
        label=plan.label,
        overhead=piece_overhead(plan.settings, device.torch_device, plan.backbone.base.hidden_size),
    )
    outcome = train(job, device)
    evaluations = evaluate_splits(plan, built, sets, device)
    entry = None
    if device.main:
        _warn_of_selection(plan, evaluations)
        entry = store_run(plan, workspace, device, built, outcome, evaluations, sets)
        folder.write_result(
            {"ref": entry.ref, "digest": entry.digest, "metrics": entry.manifest.metrics}
        )
        folder.clear_state()
    device.accelerator.wait_for_everyone()
    return Report(plan, "done", entry or find_done(plan, workspace))


def encode_splits(plan: Plan, workspace: Workspace) -> dict[str, dict[str, EvalSet]]:
    """All splits of every task, tokenised (from the cache where they are there)."""
    return {
        task: {
            split: EvalSet(data.spec, plan.backbone.encode(data, split, workspace.cache))
            for split in data.splits
        }
        for task, data in plan.datas.items()
    }


def evaluate_splits(
    plan: Plan, built: Built, sets: Mapping[str, Mapping[str, EvalSet]], device: Device
) -> dict[str, dict[str, Evaluation]]:
    """Evaluations of dev and of every test split of every task."""
    passes = eval_passes(plan.settings, device.torch_device)
    return {
        task: {
            split: evaluate(built.attached, data, device, passes)
            for split, data in splits.items()
            if split != "train"
        }
        for task, splits in sets.items()
    }


def _warn_of_selection(plan: Plan, evaluations: Mapping[str, Mapping[str, Evaluation]]) -> None:
    """Say so where the state was selected by a dev metric that is undefined or degenerate."""
    if plan.settings.select != "metric":
        return
    for task in plan.selected:
        found = evaluations[task]["dev"]
        name = found.spec.headline
        why = found.summary()[name]["caveat"]
        if why:
            print(
                printable_lines(
                    f"warning: {plan.label}: the state was selected by dev {name} of {task}, which "
                    f"says less than it seems ({why}); --set select=loss goes by the dev loss."
                ),
                file=sys.stderr,
            )


def execute_all(
    plans: Sequence[Plan],
    workspace: Workspace,
    finished: Callable[[Entry], object] | None = None,
) -> list[Report]:
    """Execute runs one after the other; one that fails does not stop the others.

    ``finished`` is called with the entry of every run as soon as it is in the zoo.

    A request that is wrong (exit code 2) stops everything: the others would fail alike. So does a
    zoo that cannot be written, and it does so before anything trains.
    """
    _try_zoo(plans, workspace)
    reports = []
    for number, plan in enumerate(plans, start=1):
        try:
            report = execute(plan, workspace)
        except RunError as error:
            report = Report(plan, "failed", None, error)
            print(printable_lines(f"error: {error}"), file=sys.stderr)
        if not quiet() and not (sys.stderr.isatty() and len(plans) == 1) and launch().rank == 0:
            line = f"[{number}/{len(plans)}] {plan.label}: {_what_became(report)}"
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


def _try_zoo(plans: Sequence[Plan], workspace: Workspace) -> None:
    """Make and remove a temporary where the first missing entry will stand."""
    missing = next((plan for plan in plans if find_done(plan, workspace) is None), None)
    if missing is not None:
        with workspace.zoo.stage(missing.ref(workspace.zoo)):
            pass
