"""What ``--sources all`` took, and what of the zoo it did not: for who expected more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl.backbone.identity import same_base
from mtl.compose.naming import run_names
from mtl.compose.refusals import argument
from mtl.tasks import list_tasks
from mtl.words import counted, printable

if TYPE_CHECKING:
    from mtl.backbone import Base
    from mtl.compose.sources import Wanted
    from mtl.tasks import Suite, TaskSpec
    from mtl.zoo import Entry, Zoo

SHOWN = 8


def passed_over(
    sources: Sequence[Entry],
    wanted: Sequence[Wanted],
    zoo: Zoo,
    base: Base,
    suite: Suite,
    target: TaskSpec,
) -> dict[str, list[str]]:
    """Why not → names of the adapters of this base in the zoo that are no source here.

    A name of one entry is as ``--sources`` takes it, with its hash where another one has its seed.
    """
    ours, taken = base.to_dict(), {entry.digest for entry in sources}
    methods = {source.task: source.method for source in wanted}
    reasons: dict[str, list[str]] = {}
    there = [e for e in zoo.entries(kind="adapter") if same_base(e.manifest.base, ours)]
    runs = Counter(map(_run_of, there))
    for entry in there:
        if entry.digest in taken:
            continue
        task, method = entry.manifest.task["id"], entry.manifest.method
        if task not in methods:
            why = f"of tasks outside suite {suite.name}"
            name = task
        elif method != methods[task]:
            why, name = "of another method (--source-method)", f"{task}:{method}"
        else:
            why = "of a task that has its source: another seed, protocol, rows or settings"
            called = argument(target) if task == target.id else task
            (name,) = run_names([entry], called)
            if runs[_run_of(entry)] == 1:
                name = name.rpartition("-")[0]
        listed = reasons.setdefault(why, [])
        if name not in listed:
            listed.append(name)
    return reasons


def _run_of(entry: Entry) -> tuple[str, str, int]:
    manifest = entry.manifest
    return manifest.task["id"], manifest.method, manifest.seed


def taken_text(
    sources: Sequence[Entry], reasons: dict[str, list[str]], suite: Suite, target: str
) -> list[str]:
    """Lines: the sources that ``all`` stands for, and what it left in the zoo."""
    tasks = [entry.manifest.task["id"] for entry in sources]
    named = ", ".join(f"{task} (its own)" if task == target else task for task in tasks)
    lines = [
        f"--sources all: the tasks of suite {suite.name} ({len(suite.tasks)}); "
        f"{counted(len(sources), 'source')}: {named}."
    ]
    for why, names in reasons.items():
        listed = ", ".join(printable(name) for name in names[:SHOWN])
        more = f", … ({len(names) - SHOWN} more)" if len(names) > SHOWN else ""
        lines.append(f"In the zoo on this base, not taken, {why}: {listed}{more}.")
    outside = next((n for why, n in reasons.items() if why.startswith("of tasks outside")), None)
    outside = [name for name in outside or () if name in list_tasks()]  # others go by their file
    if outside:
        lines.append(f"Name tasks to take them, too: --sources all {' '.join(outside[:3])}")
    return lines


def alone_text(sources: Sequence[Entry], target: str) -> str:
    """The warning that nothing is transferred from anywhere, or from one task only; or nothing."""
    if len(sources) != 1:
        return ""
    task = sources[0].manifest.task["id"]
    whose = "the target's own adapter" if task == target else f"the adapter of {task}"
    return (
        f"warning: this composition has one source, {whose} (K = 1): there is nothing to combine."
    )
