"""Which entries of the zoo a composition uses: names to entries, checked before anything loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.backbone.identity import base_differences, knows_function, same_base
from mtl.compose.composition import COMPOSITIONS, MIXED
from mtl.compose.naming import NamedRun, parse_source, run_names
from mtl.compose.refusals import ambiguous, leak, not_that_one, train_lines
from mtl.errors import RequestError, did_you_mean
from mtl.methods import METHODS, find_method
from mtl.report.picking import best_by_dev, dev_of
from mtl.runs.loading import check_base
from mtl.tasks import load_member
from mtl.tasks.yamls import is_file_name
from mtl.words import counted
from mtl.zoo.entry import drawn, is_cut
from mtl.zoo.merged import first_of

if TYPE_CHECKING:
    from mtl.backbone import Base
    from mtl.compose.composition import Composition
    from mtl.data import TaskData
    from mtl.runs import Workspace
    from mtl.tasks import Suite
    from mtl.zoo import Entry, Zoo


ALL = "all"
SEVERAL = (ALL, "best", "auto")
"""Names that stand for several sources."""


@dataclass(frozen=True)
class Wanted:
    """A source that is asked for: the task, and how its adapter was trained.

    Attributes:
        method: by its name.
        protocol: how its task's data were split; the target's own are split as the target's are.
        run: the very entry, where it was named.
        by_dev: take the best on dev where several fit.
    """

    task: str
    method: str
    protocol: str = ""
    run: NamedRun | None = None
    by_dev: bool = False

    def __str__(self) -> str:
        return f"{self.task}:{self.method}" + (f"/{self.run}" if self.run else "")


def wanted_sources(
    names: Sequence[str],
    suite: Suite,
    target: str,
    *,
    own: bool,
    method: str,
    composition: str = "scalearn",
    protocol: str | None = None,
    zoo: Zoo | None = None,
) -> list[Wanted]:
    """The sources that ``names`` ask for, the target's own last.

    Args:
        names: ``all`` for every task of the suite, names of tasks, or both; ``task:method`` names a
            source of another method than ``method``, ``task:method/seedN-HASH`` one entry. Beside
            ``all`` a name says which source of its task is meant.
        protocol: the one asked for; None: every task has that of the suite, or its own.
        own: False leaves the target's own adapter out.
        composition: what is to use them.
        zoo: what knows tasks of which no file is there any more.

    Raises:
        RequestError: an unknown task or method, methods that cannot be sources of ``composition``
            or of one composition together, a task named twice, or none left.
    """
    named = []
    for name in names:
        if name != ALL:
            task, other, run = parse_source(name)
            if task in SEVERAL and other:
                raise RequestError(
                    f"--sources: {name!r}: {task} stands for sources of one method, which "
                    f"--source-method says: --sources {task} --source-method {other}."
                )
            known, split = _source_task(task, suite, zoo, other or method)
            named.append(Wanted(known, other or method, protocol or split, run))
    ids = [source.task for source in named]
    twice = {task for task in ids if ids.count(task) > 1}
    if twice or names.count(ALL) > 1:
        raise RequestError(f"--sources names {', '.join(sorted(twice)) or ALL} twice.")
    found = named
    if ALL in names:
        chosen = {source.task: source for source in named}
        splits = {task: protocol or _split(task, suite, target) for task in suite.tasks}
        found = [chosen.pop(task, Wanted(task, method, splits[task])) for task in suite.tasks]
        if own and target not in suite.tasks and target not in chosen:
            found.append(Wanted(target, method))
        found += chosen.values()
    # The order has no effect on the function; the reference puts the target last, too.
    found = [source for source in found if source.task != target] + [
        source for source in found if source.task == target and own
    ]
    if not found:
        raise RequestError(
            f"No source is left for target {target!r}: name tasks other than the target with "
            "--sources."
        )
    check_kinds(COMPOSITIONS.get(composition), [source.method for source in found])
    return found


def typed_order(names: Sequence[str], suite: Suite, wanted: Sequence[Wanted]) -> list[str] | None:
    """The tasks of ``wanted`` in the order in which ``names`` has them.

    None where they were not named one by one (``all``, ``auto``, ``graph:…``).
    """
    used = {source.task for source in wanted}
    known = {name: task for task in used for name in (task, task.split("/")[-1])}
    try:
        called = [name.partition(":")[0] for name in names]
        tasks = [known[n] if n in known else load_member(n, suite).id for n in called]
    except RequestError:  # no task: it stands for several
        return None
    return [task for task in tasks if task in used]


def check_kinds(composition: Composition, methods: Sequence[str]) -> None:
    """Refuse source methods that ``composition`` cannot use, or that do not go together.

    Raises:
        RequestError: names the method, or two of different kinds, and says why.
    """
    by_kind: dict[str, str] = {}
    for name in methods:
        hint = (
            f"{name} is a composition, and sources are of stage one."
            if name in COMPOSITIONS
            else ""
        )
        chosen = find_method(name, hint)
        if not chosen.composes:
            raise RequestError(
                f"Sources of method {name!r} cannot be composed: {chosen.refusal}. Methods that "
                f"can: {', '.join(composable())}."
            )
        if chosen.composes not in composition.kinds:
            raise RequestError(
                f"Composition {composition.name!r} cannot use sources of method {name!r}: "
                f"{composition.refusal}."
            )
        by_kind.setdefault(chosen.composes, name)
    if len(by_kind) > 1:
        one, other = list(by_kind.values())[:2]
        raise RequestError(f"Cannot compose sources of {one!r} with those of {other!r}: {MIXED}.")


def _source_task(name: str, suite: Suite, zoo: Zoo | None, method: str) -> tuple[str, str]:
    """Id and protocol of the task of a source: of its file, else as the zoo tells it.

    Raises:
        RequestError: nobody knows it; says what else --sources takes.
    """
    try:
        spec = load_member(name, suite)
        return spec.id, suite.protocol_of(spec)
    except RequestError as error:
        gone = is_file_name(name)
        called = Path(name).stem if gone else name
        entries = zoo.entries(kind="adapter", task=called) if zoo is not None else []
        tasks = {entry.manifest.task["id"] for entry in entries}
        if len(tasks) == 1 and not gone:
            fitting = [e for e in entries if e.manifest.method == method] or entries
            newest = max(fitting, key=lambda entry: entry.manifest.created)
            return tasks.pop(), str(newest.manifest.data["protocol"])
        there = f" The zoo has adapters of {', '.join(sorted(tasks))}: name it so." if tasks else ""
        guess = did_you_mean(name, ("all", "best", "auto", "graph:k=3"))
        raise RequestError(
            f"--sources: {error} Beside names of tasks it takes all, best, auto or graph:k=3."
            f"{there}{guess}"
        ) from error


def _split(task: str, suite: Suite, target: str) -> str:
    """The protocol of a task of ``suite``; the target's data are split already."""
    if task == target:
        return ""
    return suite.protocol or suite.protocol_of(load_member(task, suite))


def composable() -> list[str]:
    """Names of the methods whose adapters can be sources."""
    return [name for name, method in METHODS.usable().items() if method.composes]


def resolve_sources(
    wanted: Sequence[Wanted],
    target: TaskData,
    *,
    workspace: Workspace,
    base: Base,
    seed: int,
    suite: Suite,
    model: str,
    allow_missing: bool = False,
) -> list[Entry]:
    """One stage-one entry per wanted source: of this base, ``seed`` and its protocol.

    The target's own source must be trained on the very rows that the composition trains on: one
    that saw more would carry them in. So with k shots it is the one of the same k rows. Of other
    tasks, one trained on all its rows goes before those cut by ``shots`` or
    ``max_train_samples``, and of these the one of the most rows, as learning curves leave them.
    Where several are left that differ only in settings, the choice is the user's.

    Raises:
        RequestError: missing or ambiguous entries (names all, and both remedies), or sources whose
            base or placement does not fit.
    """
    zoo = workspace.zoo
    found: list[Entry] = []
    missing: list[Wanted] = []
    elsewhere: list[Entry] = []
    others: list[Entry] = []
    unclear: list[tuple[Wanted, list[Entry]]] = []
    with zoo.one_look():
        for source in wanted:
            fitting, entries, other_rows = fitting_entries(source, target, zoo, base, seed)
            others += other_rows
            if len(fitting) > 1:
                unclear.append((source, fitting))
            if fitting:
                found.append(fitting[0])
            else:
                missing.append(source)
                elsewhere += entries
    if unclear:
        raise ambiguous(unclear, target)
    if missing and not allow_missing:
        ours = base.to_dict()
        wrong = [e for e in elsewhere if not same_base(e.manifest.base, ours)]
        if wrong and len(wrong) == len(elsewhere):
            check_base(wrong[0], base)
        splits = {target.protocol if s.task == target.spec.id else s.protocol for s in missing}
        raise RequestError(
            f"{len(missing)} of {counted(len(wanted), 'source')} "
            f"{'is' if len(missing) == 1 else 'are'} not in the zoo {zoo.root} for base "
            f"{base.id} ({base.fingerprint[:8]}), seed {seed}, protocol "
            f"{', '.join(sorted(splits))}: "
            + ", ".join(f"{source.task} ({source.method})" for source in missing)
            + "."
            + leak(others, target)
            + " Train them:\n"
            + train_lines(missing, target, suite, seed, model, workspace)
            + "\nor go without them: --allow-missing."
        )
    if not found:
        tasks = ", ".join(source.task for source in wanted)
        raise RequestError(f"None of the sources {tasks} is in the zoo {zoo.root}.")
    check_placement(found)
    return found


def _rows(entry: Entry) -> int:
    """How many rows an entry was trained on; 0 where it does not say."""
    return int((entry.manifest.data.get("sizes") or {}).get("train") or 0)


def fitting_entries(
    source: Wanted, target: TaskData, zoo: Zoo, base: Base, seed: int
) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """The entries that can be ``source``, and those that cannot.

    See :func:`resolve_sources` for what fits. An entry that ``source`` names fits or is refused.

    Returns:
        What fits; all of its task, method and seed, whatever the base; and of the target's own
        those that fit but for the rows that they saw.

    Raises:
        RequestError: the entry that ``source`` names is not there, or cannot be used here.
    """
    own = source.task == target.spec.id
    split = target.protocol if own else source.protocol
    entries = zoo.entries(
        kind="adapter",
        task=source.task,
        method=source.method,
        seed=source.run.seed if source.run else seed,
    )
    if source.run:
        entries = [entry for entry in entries if source.run.fits(entry)]
    entries = first_of(entries)
    ours = base.to_dict()
    fitting = [
        entry
        for entry in entries
        if same_base(entry.manifest.base, ours) and entry.manifest.data["protocol"] == split
    ]
    others: list[Entry] = []

    def several(found: list[Entry]) -> bool:
        return len(found) > 1 and not (source.run and source.run.hash)

    if own:
        rows = target.fingerprints["train"]
        others = [e for e in fitting if e.manifest.data["splits"]["train"] != rows]
        fitting = [e for e in fitting if e.manifest.data["splits"]["train"] == rows]
        if several(fitting):  # a limit that cuts nothing is another run on the same rows
            limit = target.max_train_samples
            alike = [e for e in fitting if e.manifest.run_settings["max_train_samples"] == limit]
            fitting = alike or fitting
    elif several(fitting):
        whole = [entry for entry in fitting if not is_cut(entry)]
        most = max(_rows(entry) for entry in fitting)
        fitting = whole or [entry for entry in fitting if _rows(entry) == most]
    if several(fitting):  # what is known to be of this function goes before what may be
        fitting = [e for e in fitting if knows_function(e.manifest.base)] or fitting
    if source.by_dev and several(fitting):
        best = best_by_dev([[dev_of(entry)] for entry in fitting])
        fitting = fitting if best is None else [fitting[best]]
    if several(fitting):
        fitting = drawn(fitting)
    if source.run and not fitting:
        raise not_that_one(source, entries, others, target, zoo, base, split)
    return fitting, entries, others


def find_candidates(
    wanted: Sequence[Wanted], target: TaskData, zoo: Zoo, base: Base, seed: int
) -> tuple[list[Entry], dict[str, str]]:
    """The entries that could be sources, and for every other wanted task why it has none.

    Unlike :func:`resolve_sources` it refuses nothing but a named entry that is not there: who
    compares candidates wants to see what is left out, and why.
    """
    found: list[Entry] = []
    left_out: dict[str, str] = {}
    ours = base.to_dict()
    with zoo.one_look():
        looked = [(source, fitting_entries(source, target, zoo, base, seed)) for source in wanted]
    for source, (fitting, entries, _) in looked:
        if len(fitting) == 1:
            found.append(fitting[0])
        elif fitting:
            left_out[source.task] = f"ambiguous: {', '.join(run_names(fitting))}"
        else:
            bases = [entry.manifest.base for entry in entries]
            if bases and not any(same_base(other, ours) for other in bases):
                others = {b["fingerprint"]: b["id"] for b in bases}
                listed = ", ".join(f"{name} ({mark[:8]})" for mark, name in others.items())
                reason = (
                    f"of another base: {listed}, not {base.id} ({base.fingerprint[:8]}); they "
                    f"differ in {'; '.join(base_differences(bases[0], ours))}"
                )
            elif bases:
                reason = f"of another protocol than {source.protocol}, or of other rows"
            else:
                reason = f"not in the zoo ({source.method}, seed {seed})"
            left_out[source.task] = reason
    return found, left_out


def check_placement(entries: Sequence[Entry]) -> None:
    """Refuse sources that do not sit at the same sites with the same residuals.

    Raises:
        RequestError: names two that differ, and in what; or one that changes the base itself.
    """
    for entry in entries:
        if entry.manifest.weights == "delta" and len(entries) > 1:
            raise RequestError(
                f"{entry.ref} changes weights of the base itself ({entry.manifest.method}); the "
                "other sources were trained without that change. It composes alone: --sources "
                f"{entry.manifest.task['name']}."
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
            "Sources mix where they sit at the same places: train them with one --set placement=…, "
            "or the same modules."
        )
