"""Which entries of the zoo a composition uses: names to entries, checked before anything loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl.errors import RequestError
from mtl.tasks import load_task
from mtl.train.load import check_base

if TYPE_CHECKING:
    from mtl.backbone import Base
    from mtl.tasks import Suite, TaskData
    from mtl.zoo import Entry, Zoo


def source_tasks(wanted: Sequence[str], suite: Suite, target: str, *, own: bool) -> list[str]:
    """Task ids of the sources, the target's own last.

    Args:
        wanted: ``["all"]`` for every task of the suite, or names of tasks.
        own: False leaves the target's own adapter out.

    Raises:
        RequestError: an unknown task, one named twice, or none left.
    """
    if list(wanted) == ["all"]:
        ids = list(suite.tasks)
        if own and target not in ids:
            ids.append(target)
    else:
        ids = [load_task(name, suite.name).id for name in wanted]
        twice = {task for task in ids if ids.count(task) > 1}
        if twice:
            raise RequestError(f"--sources names {', '.join(sorted(twice))} twice.")
    # The order has no effect on the function; the reference puts the target last, too.
    ids = [task for task in ids if task != target] + [
        task for task in ids if task == target and own
    ]
    if not ids:
        raise RequestError(
            f"No source is left for target {target!r}: name other tasks with --sources, or drop "
            "--without-own."
        )
    return ids


def resolve_sources(
    tasks: Sequence[str],
    target: TaskData,
    *,
    zoo: Zoo,
    base: Base,
    method: str,
    seed: int,
    protocol: str,
    suite: str,
    model: str,
    allow_missing: bool = False,
) -> list[Entry]:
    """One stage-one entry per task: of this base, ``method``, ``seed`` and protocol.

    The target's own source must be trained on the very rows that the composition trains on: one
    that saw more would carry them in. Of other tasks, one trained on all its rows goes before
    those cut by ``max_train_samples``. Where several are left that differ only in settings, the
    choice is the user's.

    Raises:
        RequestError: missing or ambiguous entries (names all, and both remedies), or sources whose
            base or placement does not fit.
    """
    found: list[Entry] = []
    missing: list[str] = []
    elsewhere: list[Entry] = []
    for task in tasks:
        entries = zoo.entries(kind="adapter", task=task, method=method, seed=seed)
        fitting = [
            entry
            for entry in entries
            if entry.manifest.base["fingerprint"] == base.fingerprint
            and entry.manifest.data["protocol"] == protocol
        ]
        if task == target.spec.id:
            rows = target.fingerprints["train"]
            fitting = [entry for entry in fitting if entry.manifest.data["splits"]["train"] == rows]
        elif len(fitting) > 1:
            whole = [e for e in fitting if not e.manifest.run_settings["max_train_samples"]]
            fitting = whole or fitting
        if len(fitting) > 1:
            listed = "\n  ".join(entry.ref for entry in fitting)
            raise RequestError(
                f"Source {task!r} is ambiguous: {len(fitting)} entries of {method}, seed {seed}, "
                f"fit:\n  {listed}\nRemove those you do not want (mtl.zoo rm REF), or keep them "
                "in another zoo (--zoo DIR)."
            )
        if fitting:
            found.append(fitting[0])
        else:
            missing.append(task)
            elsewhere += entries
    if missing and not allow_missing:
        wrong = [e for e in elsewhere if e.manifest.base["fingerprint"] != base.fingerprint]
        if wrong and len(wrong) == len(elsewhere):
            check_base(wrong[0], base)
        raise RequestError(
            f"{len(missing)} of {len(tasks)} sources are not in the zoo {zoo.root} for base "
            f"{base.id} ({base.fingerprint[:8]}), method {method}, seed {seed}, protocol "
            f"{protocol}: {', '.join(missing)}. Train them:\n"
            + _train_lines(missing, target, suite, method, seed, model)
            + "\nor go without them: --allow-missing."
        )
    if not found:
        raise RequestError(f"None of the sources {', '.join(tasks)} is in the zoo {zoo.root}.")
    check_placement(found)
    return found


def check_placement(entries: Sequence[Entry]) -> None:
    """Refuse sources that do not sit at the same sites with the same residuals.

    Raises:
        RequestError: names two that differ, and in what; or one that changes the base itself.
    """
    for entry in entries:
        if entry.manifest.weights == "delta":
            raise RequestError(
                f"{entry.ref} changes weights of the base itself ({entry.manifest.method}); the "
                "other sources were trained without that change, so it composes with nothing."
            )
    first = entries[0]
    for entry in entries[1:]:
        ours, other = first.manifest.placement or {}, entry.manifest.placement or {}
        if ours == other:
            continue
        differing = [key for key in sorted({*ours, *other}) if ours.get(key) != other.get(key)]
        said = "; ".join(f"{k}: {ours.get(k)} and {other.get(k)}" for k in differing)
        raise RequestError(
            f"Cannot compose {first.ref} with {entry.ref}: their placements differ ({said}). "
            "Train them with one --set placement=…."
        )


def _train_lines(
    missing: Sequence[str], target: TaskData, suite: str, method: str, seed: int, model: str
) -> str:
    """The commands that make the missing sources; the target's own on the target's rows."""
    line = f"  python -m mtl.train --suite {suite} --method {method} --seeds {seed} --model {model}"
    lines = []
    others = " ".join(task for task in missing if task != target.spec.id)
    if others:
        lines.append(f"{line} --task {others}")
    if target.spec.id in missing:
        limit = target.max_train_samples
        cut = f" --max-train-samples {limit}" if limit else ""
        lines.append(
            f"{line} --task {target.spec.id}{cut}   # the own source, on the same "
            f"{target.sizes['train']} rows"
        )
    return "\n".join(lines)
