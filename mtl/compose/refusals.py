"""Why sources cannot be used, and what to type instead."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl.compose.naming import differences, run_names
from mtl.errors import RequestError
from mtl.runs.loading import check_base
from mtl.tasks import list_tasks, load_task
from mtl.zoo import open_zoo
from mtl.zoo.place import option_of

if TYPE_CHECKING:
    from mtl.backbone import Base
    from mtl.compose.sources import Wanted
    from mtl.data import TaskData
    from mtl.runs import Workspace
    from mtl.tasks import Suite, TaskSpec
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
        "'all', or the other tasks), take those that are best on dev (--pick best-dev), or remove "
        f"those you do not want (python -m mtl.zoo rm REF{option_of(unclear[0][1][0])})."
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
    missing: Sequence[Wanted],
    target: TaskData,
    suite: Suite,
    seed: int,
    model: str,
    workspace: Workspace,
) -> str:
    """The commands that make the missing sources; the target's own on the target's rows.

    They name what makes the entries fit here: protocol and zoo, files of tasks that the catalogue
    lacks; and the suite only where there is one of that name.
    """
    specs = {spec.id: spec for spec in map(load_task, workspace.tasks)}
    groups: dict[tuple[str, str, bool], list[str]] = {}
    for source in missing:
        own = source.task == target.spec.id
        split = target.protocol if own else source.protocol
        groups.setdefault((source.method, split, own), []).append(source.task)
    lines, named = [], suite.argument
    for (method, split, own), tasks in groups.items():
        words = ["python", "-m", "mtl.train", *(["--suite", named] if named else [])]
        words += ["--method", method, "--seeds", str(seed), "--model", model, "--task"]
        words += [
            argument(target.spec if own else specs[t]) if own or t in specs else t for t in tasks
        ]
        if split != suite.protocol or not {*tasks} <= {*suite.tasks}:
            words += ["--protocol", split]
        if own and (target.shots or target.shots_per_class):
            words += ["--shots", str(target.shots)] if target.shots else []
            each = str(target.shots_per_class)
            words += ["--shots-per-class", each] if target.shots_per_class else []
            words += ["--shot-draw", str(target.shot_draw)] if target.shot_draw else []
        elif own and target.max_train_samples:
            words += ["--max-train-samples", str(target.max_train_samples)]
        if own and target.spec.group_by != load_task(argument(target.spec)).group_by:
            words += ["--group-by", str(target.spec.group_by)]
        if own and target.sample != suite.sample_of(target.spec.id):
            words += ["--set", f"sample={target.sample}"]
        rows = f"   # the own source, on the same {target.sizes['train']} rows" if own else ""
        lines.append(f"  {shlex.join([*words, *_places(workspace)])}{rows}")
    return "\n".join(lines)


def _places(workspace: Workspace) -> list[str]:
    """The places of the command at hand that are not those that another one would take."""
    words = []
    if workspace.zoo.root != open_zoo().root:
        words += ["--zoo", str(workspace.zoo.root)]
    if workspace.data_root != (os.environ.get("MTL_DATA_ROOT") or None):
        words += ["--data-root", str(workspace.data_root)]
    return words


def argument(spec: TaskSpec) -> str:
    """How a command line names the task: its id, or its file where that is not found by id."""
    return spec.id if spec.id in list_tasks() or not spec.origin else str(spec.origin)
