"""Why sources cannot be used, and what to type instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl.compose.naming import differences, run_names
from mtl.errors import RequestError
from mtl.tasks import list_tasks
from mtl.train.load import check_base

if TYPE_CHECKING:
    from mtl.backbone import Base
    from mtl.compose.sources import Wanted
    from mtl.tasks import TaskData, TaskSpec
    from mtl.zoo import Entry, Zoo


def ambiguous(unclear: Sequence[tuple[Wanted, Sequence[Entry]]], target: TaskData) -> RequestError:
    """The error for sources with several entries each, with a name that each can be called by."""
    blocks = []
    for source, fitting in unclear:
        task = argument(target.spec) if source.task == target.spec.id else None
        lines = [
            f"  {name}" + (f"   {said}" if said else "")
            for name, said in zip(run_names(fitting, task), differences(fitting), strict=True)
        ]
        blocks.append(
            f"Source {source.task!r} is ambiguous: {len(fitting)} entries of {source.method}, seed "
            f"{fitting[0].manifest.seed}, fit:\n" + "\n".join(lines)
        )
    return RequestError(
        "\n".join(blocks) + "\nName the one you mean with --sources, as it stands here (beside "
        "'all', or the other tasks), or remove those you do not want (mtl.zoo rm REF)."
    )


def not_that_one(
    source: Wanted,
    entries: Sequence[Entry],
    others: Sequence[Entry],
    target: TaskData,
    zoo: Zoo,
    base: Base,
    split: str,
) -> RequestError:
    """Why the entry that ``source`` names cannot be used.

    Args:
        entries: those of this name; others: those of them that saw other rows than the target's.
    """
    if not entries:
        there = zoo.entries(kind="adapter", task=source.task)
        listed = "".join(f"\n  {name}" for name in run_names(there)[:10])
        return RequestError(
            f"There is no source {source} in the zoo {zoo.root}. Of {source.task} it holds:"
            f"{listed or ' nothing.'}"
        )
    if others:
        return RequestError(f"Cannot use the source {source} here.{leak(others, target)}")
    for entry in entries:
        check_base(entry, base)
    told = entries[0].manifest.data["protocol"]
    return RequestError(
        f"Cannot use the source {source} here: its data were split by the protocol {told!r}, this "
        f"run's are by {split!r} (--protocol)."
    )


def leak(others: Sequence[Entry], target: TaskData) -> str:
    """Why the target's adapters that are there are not taken, or nothing."""
    if not others:
        return ""
    listed = "; ".join(f"{e.ref} ({e.manifest.data['sizes']['train']:,} rows)" for e in others[:4])
    return (
        f" The target's own source must be trained on the {target.sizes['train']:,} rows that the "
        "composition trains on; one that saw others would leak them into the result, so these are "
        f"not used: {listed}."
    )


def train_lines(
    missing: Sequence[Wanted], target: TaskData, suite: str, seed: int, model: str
) -> str:
    """The commands that make the missing sources; the target's own on the target's rows."""
    lines = []
    for method in dict.fromkeys(source.method for source in missing):
        line = (
            f"  python -m mtl.train --suite {suite} --method {method} --seeds {seed} "
            f"--model {model}"
        )
        tasks = [source.task for source in missing if source.method == method]
        others = " ".join(task for task in tasks if task != target.spec.id)
        if others:
            lines.append(f"{line} --task {others}")
        if target.spec.id in tasks:
            limit = target.max_train_samples
            cut = f" --max-train-samples {limit}" if limit else ""
            if target.shots:
                draw = f" --shot-draw {target.shot_draw}" if target.shot_draw else ""
                cut = f" --shots {target.shots}{draw}"
            lines.append(
                f"{line} --task {argument(target.spec)}{cut}   # the own source, on the same "
                f"{target.sizes['train']} rows"
            )
    return "\n".join(lines)


def argument(spec: TaskSpec) -> str:
    """How a command line names the task: its id, or its file where that is not found by id."""
    return spec.id if spec.id in list_tasks() or not spec.origin else str(spec.origin)
