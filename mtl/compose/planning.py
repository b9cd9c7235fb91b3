"""From a request for a composition to its runs: find, train and pick sources, then plan.

Nothing here parses or prints: the command line and :func:`mtl.compose_adapters` both call
:func:`plan_composition` and show what it says as they like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mtl.compose.best import BEST, BUDGET, Choice, Tried
from mtl.compose.choosing import (
    above_choice,
    check_choice,
    check_composition,
    choose_best,
    chosen_target,
    few_rows,
)
from mtl.compose.composition import COMPOSITIONS
from mtl.compose.control import check_control, control_for, read_control
from mtl.compose.limits import check_early
from mtl.compose.missing import limits_of, plan_missing, source_rounds
from mtl.compose.per_source import by_name
from mtl.compose.picking import pick
from mtl.compose.probe import grid
from mtl.compose.sources import ALL, resolve_sources, typed_order, wanted_sources
from mtl.compose.stage_two import Target, plan_compose, resolve_compose, target_in
from mtl.compose.taken import alone_text, passed_over, taken_text
from mtl.errors import MtlError, RequestError, unknown
from mtl.graph import graph_folder
from mtl.graph.request import SourceRequest, parse_sources
from mtl.methods import METHODS, find_method
from mtl.report.picking import BEST_DEV
from mtl.runs.context import Context, check_seeds, suite_of
from mtl.runs.settings import Overrides
from mtl.tasks import load_member
from mtl.typed import given
from mtl.zoo import open_zoo

if TYPE_CHECKING:
    from pathlib import Path

    from mtl.compose.sources import Wanted
    from mtl.graph.select import Selection
    from mtl.runs import Report, Run
    from mtl.tasks import Recipe, Suite, TaskSpec
    from mtl.zoo import Entry


@dataclass(frozen=True)
class Asked:
    """What is to be composed, as a user says it.

    Attributes:
        suite: the suite that ``all`` means; None: the target's.
        protocol: how all data are split; None: as the suite, or a task's own file, says.
        sources: ``all``, names of tasks, ``best``, ``auto`` or ``graph:k=3``; see
            ``mtl.compose --help``.
        source_seed: seed of the sources, ``run`` for that of each run; None: the recipe's, else 0.
        own: whether the target's own adapter is a source.
        probe: scales to probe at instead of composing, the method's grid; None composes.
        train_missing: train the sources that the zoo lacks.
        allow_missing: go without them.
        budget, min_gain: how many sources ``auto`` and ``graph:`` pick.
        graph: folder of the graph, None for the zoo's.
        trials, minutes: full runs that a search for the ``best`` may cost, and its time.
        control: which twins stand for the other tasks' sources (:mod:`mtl.compose.control`); None
            composes the sources themselves.
        pick: ``best-dev`` takes, of several entries that could be a source, the best on dev (of the
            same dev rows); None leaves the choice to the user.
        zoo: where sources are, None for the usual place: it knows tasks whose files are gone.
    """

    target: str
    suite: str | None = None
    protocol: str | None = None
    sources: Sequence[str] = (ALL,)
    method: str = "scalearn"
    seeds: Sequence[int] = (0,)
    source_method: str = "pfeiffer"
    source_seed: str | None = None
    own: bool = True
    probe: Sequence[float] | None = None
    train_missing: bool = False
    allow_missing: bool = False
    budget: int | None = None
    min_gain: float | None = None
    graph: str | None = None
    trials: float | None = None
    minutes: float | None = None
    control: str | None = None
    pick: str | None = None
    zoo: str | Path | None = None

    @property
    def best(self) -> bool:
        """Whether sources and their use are to be searched for."""
        return list(self.sources) == [BEST]


@dataclass(frozen=True)
class Request:
    """An :class:`Asked` whose names are known to exist; nothing heavy was loaded for it."""

    asked: Asked
    suite: Suite
    spec: TaskSpec
    picking: SourceRequest | None
    wanted: list[Wanted]

    def check(self, recipe: Recipe, overrides: Overrides) -> None:
        """Refuse wrong settings. Raises RequestError."""
        settings, _ = resolve_compose(self.spec, self.asked.method, recipe, overrides)
        gate = getattr(settings, "gate", "")
        if gate and self.asked.best:
            raise RequestError(
                f"--sources {BEST} judges sources and compositions over all rows alike, without "
                f"gate={gate}. Search first, then name the sources it chose beside the gate."
            )


@dataclass
class Planned:
    """What became of a request.

    Attributes:
        runs: the compositions to be run.
        composed: sources, and the seeds of the runs that use them.
        selection, choice: why these sources, where they were picked, or searched for.
        passed_over: for ``all``: why not → names of adapters of the zoo that are no source.
        notes, warnings: what a person may, and should, read before the runs.
        missing: runs of stage one that are needed first; with ``train`` None nothing else is there.
        limits: what of the target's settings a missing adapter of its own shares: its rows.
        trained: what became of them; where one failed nothing else is there.
    """

    runs: list[Run] = field(default_factory=list)
    composed: list[tuple[list[Entry], list[int]]] = field(default_factory=list)
    selection: Selection | None = None
    choice: Choice | None = None
    passed_over: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    missing: list[Run] = field(default_factory=list)
    limits: Overrides = field(default_factory=Overrides)
    trained: list[Report] = field(default_factory=list)

    @property
    def sources(self) -> list[Entry]:
        """The sources of the first seed."""
        return self.composed[0][0]


Train = Callable[["Sequence[Run]", Target], "list[Report]"]
"""(missing runs, what they are for) → what became of them."""


def read_request(asked: Asked) -> Request:
    """Check every name of ``asked``.

    Raises:
        RequestError: an unknown task, method, suite or source, or sources that do not go together.
    """
    hint = ""
    if asked.method in METHODS:
        hint = (
            f"That is stage one: python -m mtl.train --method {asked.method}"
            f"{given('--zoo')} --task TASK."
        )
    COMPOSITIONS.get(asked.method, hint)
    find_method(asked.source_method)
    if asked.control is not None:
        read_control(asked.control)
    suite = suite_of(asked.suite, [asked.target])
    spec = load_member(asked.target, suite)
    if asked.trials is not None and not asked.best:
        raise RequestError(f"--trials {asked.trials:g} is for --sources {BEST}.")
    if asked.minutes is not None and not asked.best:
        raise RequestError(f"--time {asked.minutes:g} is for --sources {BEST}.")
    if asked.best:
        check_composition(asked.method)
    elif BEST in asked.sources:
        raise RequestError(f"--sources {BEST} searches among all sources and stands alone.")
    named = [ALL] if asked.best else list(asked.sources)
    picking = parse_sources(named, asked.budget, asked.min_gain)
    wanted = wanted_sources(
        [ALL] if picking else named,
        suite,
        spec.id,
        own=asked.own,
        method=asked.source_method,
        composition=asked.method,
        protocol=asked.protocol,
        zoo=open_zoo(asked.zoo),
    )
    if asked.pick not in {None, BEST_DEV}:
        raise unknown("pick", str(asked.pick), [BEST_DEV])
    wanted = [replace(source, by_dev=asked.pick is not None) for source in wanted]
    if asked.best:
        budget = BUDGET if asked.trials is None else asked.trials
        check_early(budget, len(wanted), asked.minutes)
    return Request(asked, suite, spec, picking, wanted)


def plan_composition(
    request: Request,
    context: Context,
    *,
    train: Train | None,
    picked: Callable[[Selection], object] = lambda selection: None,
    searching: Callable[[Sequence[Run]], object] = lambda runs: None,
    tried: Callable[[Tried], object] = lambda trial: None,
    dry_run: bool = False,
) -> Planned:
    """Find the sources, and plan one run per seed (of a probe, per grid point and seed).

    Args:
        train: trains missing sources, where the request asks for it; None only plans them.
        picked: called with the sources that were picked, before anything else can go wrong.
        searching: called before a search for the best, with runs of all the sources that it is
            among, by the composition that was asked for.
        tried: called with every trial of it.
        dry_run: leave no evidence of what was looked at; search for nothing.

    Raises:
        RequestError: missing or ambiguous sources, unusable data, settings that do not fit.
    """
    asked, spec, picking, wanted = request.asked, request.spec, request.picking, request.wanted
    control = control_for(asked.control, search=asked.best)
    target = target_in(context, spec, asked.method, control=control)
    seeds = check_seeds(asked.seeds)
    rounds = source_rounds(asked.source_seed, context.recipe, asked.method, seeds)
    if len(rounds) > 1 and (picking is not None or asked.best):
        raise RequestError(
            "Sources of each run's own seed cannot be picked or searched for: name them with "
            "--sources, or give one --source-seed for all."
        )
    found = Planned(limits=limits_of(target))
    for source_seed, of_it in rounds:
        if asked.train_missing:
            missing = plan_missing(
                wanted,
                target.data,
                found.limits,
                suite=context.suite,
                seed=source_seed,
                backbone=context.backbone,
                recipe=context.recipe,
                workspace=context.workspace,
                picking=picking is not None,
            )
            found.missing += missing
            if missing and train is None:
                return found
            if missing and train is not None:
                found.trained += train(missing, target)
                if any(report.entry is None for report in found.trained):
                    return found
        if picking is not None:
            found.selection, notes = pick(
                picking,
                wanted,
                target,
                context,
                method=asked.source_method,
                folder=graph_folder(context.workspace.zoo.root, asked.graph),
                seed=source_seed,
                keep=not dry_run,
            )
            found.warnings += notes
            picked(found.selection)
            wanted = [s for s in wanted if s.task in {*found.selection.chosen, spec.id}]
        sources = resolve_sources(
            wanted,
            target.data,
            workspace=context.workspace,
            base=context.backbone.base,
            seed=source_seed,
            suite=request.suite,
            model=context.model,
            allow_missing=asked.allow_missing,
        )
        found.composed.append((sources, of_it))
    told: dict[str, Any] = {}
    if asked.best:
        ((among, _),) = found.composed
        check_choice(among, target, context, suite=request.suite, budget=asked.trials)
        searching(_runs(found, [target], request, context))
    if asked.best and not dry_run:
        suggested = _suggested(found, target, request, context, rounds[0][0])
        target, told = _search(found, target, request, context, suggested, tried)
    _say_what_was_taken(found, request, context, wanted, picking is not None)
    tasks = [entry.manifest.task["id"] for entry in found.sources]
    if not asked.best:  # a search among twins may well end at the own adapter
        check_control(target.control, tasks, spec.id)
    typed = typed_order(list(asked.sources), request.suite, wanted)
    target = replace(
        target, method_settings=by_name(target.method_settings, target.method, tasks, typed)
    )
    targets = [target]
    if asked.probe is not None:
        chosen = grid(asked.probe, len(found.sources))
        targets = [replace(target, method_settings=settings) for settings in chosen]
    found.runs = _runs(found, targets, request, context)
    if told:
        found.runs = [replace(run, told=told) for run in found.runs]
    return found


def _runs(
    found: Planned, targets: Sequence[Target], request: Request, context: Context
) -> list[Run]:
    return [
        run
        for target in targets
        for own, of_it in found.composed
        for run in plan_compose(
            target,
            suite=request.suite,
            sources=own,
            seeds=of_it,
            backbone=context.backbone,
            workspace=context.workspace,
        )
    ]


def _search(
    found: Planned,
    target: Target,
    request: Request,
    context: Context,
    suggested: Sequence[Sequence[str]],
    tried: Callable[[Tried], object],
) -> tuple[Target, dict[str, Any]]:
    """Search among the sources that are there: how to use them, and what the manifest tells."""
    ((entries, seeds),) = found.composed
    found.choice = choose_best(
        entries,
        target,
        context,
        suite=request.suite,
        budget=request.asked.trials,
        minutes=request.asked.minutes,
        suggested=suggested,
        tell=tried,
    )
    assert found.choice.chosen is not None
    chosen = found.choice.chosen.sources
    kept = [entry for entry in entries if entry.manifest.task["id"] in chosen]
    found.composed = [(kept, seeds)]
    found.warnings += filter(
        None, [few_rows(found.choice), above_choice(found.choice, entries, target)]
    )
    return chosen_target(target, found.choice, context), {"choice": found.choice.to_dict()}


def _suggested(
    found: Planned, target: Target, request: Request, context: Context, seed: int
) -> list[list[str]]:
    """The set that ``auto`` would take, for the search; none where it cannot judge the sources."""
    asked = request.asked
    ((entries, _),) = found.composed
    try:
        selection, _ = pick(
            SourceRequest("auto"),
            request.wanted,
            target,
            context,
            method=asked.source_method,
            folder=graph_folder(context.workspace.zoo.root, asked.graph),
            seed=seed,
            keep=False,
        )
    except MtlError as error:
        found.notes.append(f"note: the choice of 'auto' was not tried: {error}")
        return []
    picked = {*selection.chosen, target.data.spec.id}
    there = [str(entry.manifest.task["id"]) for entry in entries]
    chosen = [task for task in there if task in picked]
    return [chosen] if chosen else []


def _say_what_was_taken(
    found: Planned, request: Request, context: Context, wanted: Sequence[Wanted], picked: bool
) -> None:
    sources, spec = found.sources, request.spec
    everything = ALL in request.asked.sources
    picked = picked or request.asked.best
    if everything:
        found.passed_over = passed_over(
            sources, wanted, context.workspace.zoo, context.backbone.base, request.suite, spec
        )
        found.notes += taken_text(sources, found.passed_over, request.suite, spec.id)
    alone = alone_text(sources, spec.id)
    if alone and (everything or picked or sources[0].manifest.task["id"] == spec.id):
        found.warnings.append(alone)
