"""What ``--sources all`` took, and what of the zoo it did not: for who expected more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl.backbone.identity import same_base
from mtl.compose.naming import SHOWN as DIGITS
from mtl.compose.naming import NamedRun
from mtl.compose.refusals import argument
from mtl.tasks import list_tasks
from mtl.words import counted, printable

if TYPE_CHECKING:
    from mtl.backbone import Base
    from mtl.compose.sources import Wanted
    from mtl.tasks import Suite, TaskSpec
    from mtl.zoo import Entry, Zoo
    from mtl.zoo.summary import Summary

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
    taken = {entry.digest for entry in sources}
    methods = {source.task: source.method for source in wanted}
    there = [s for s in zoo.summaries(kind="adapter") if _on(s, base, zoo)]
    runs = Counter(map(_run_of, there))
    names: dict[str, dict[str, None]] = {}
    for entry in there:
        if entry.digest in taken:
            continue
        task, method = entry.task, entry.method
        if task not in methods:
            why = f"of tasks outside suite {suite.name}"
            name = task
        elif method != methods[task]:
            why, name = "of another method (--source-method)", f"{task}:{method}"
        else:
            why = "of a task that has its source: another seed, protocol, rows or settings"
            called = argument(target) if task == target.id else task
            alone = runs[_run_of(entry)] == 1
            run = NamedRun(entry.seed, "" if alone else entry.runhash[:DIGITS])
            name = f"{called}:{method}/{run}"
        names.setdefault(why, {})[name] = None
    return {why: [*found] for why, found in names.items()}


def _on(summary: Summary, base: Base, zoo: Zoo) -> bool:
    """Whether an entry is of this base; one of before that was recorded tells only itself."""
    if summary.fingerprint == base.weights:
        return any(same_base(e.manifest.base, base.to_dict()) for e in zoo.read([summary]))
    return summary.fingerprint == base.fingerprint


def _run_of(summary: Summary) -> tuple[str, str, int]:
    return summary.task, summary.method, summary.seed


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
