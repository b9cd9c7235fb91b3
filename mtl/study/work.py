"""From a cell to its run: what a worker is given, and what a process keeps for it.

A task is plain data and travels to any process or machine that sees the same zoo, runs and cache;
there :func:`mtl.study.executing.execute_task` makes the :class:`mtl.runs.Run` again, by the
functions that the command lines call, and runs it to its entry. A :class:`Desk` is what a process
keeps between tasks: bases that are loaded, recipes, suites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError
from mtl.runs.context import Context, open_context, specs_of, suite_of
from mtl.runs.settings import Overrides
from mtl.runs.workspace import Workspace, open_workspace
from mtl.study.cells import Cell
from mtl.tasks import load_member

if TYPE_CHECKING:
    from mtl.compose.planning import Request
    from mtl.compose.sources import Wanted
    from mtl.registry import Registry
    from mtl.runs import Run
    from mtl.tasks import Suite, TaskSpec


@dataclass(frozen=True)
class Places:
    """Where the runs of a study lie and how they compute; None: as the environment says.

    Attributes:
        beside: how many runs, or trials of a search or a choice of sources, go side by side on one
            encoder; 0: as many as pay.
    """

    zoo: str | None = None
    runs: str | None = None
    data_root: str | None = None
    deterministic: bool = False
    track: str | None = None
    track_group: str = ""
    beside: int = 1
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """What a worker is given: a cell whose sources are named one by one, and the hash of its run.

    Attributes:
        key: of the study's cell.
        runhash: of the run that was planned; None where the worker chooses sources itself.
    """

    key: str
    cell: Cell
    places: Places
    runhash: str | None = None


UNFIT = "unfit"
APART = ("apart", UNFIT)
"""Of tasks that were to go side by side: something was wrong with one; their runs do not fit."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        status: ``done``, ``skipped`` (it was in the zoo), ``failed``, ``held`` (another process is
            at it), or, where it was to go side by side with others and did not, one of
            :data:`APART`: it is to go by itself.
        error: why there is no entry.
        told: what tables show of the entry: reference, digest, metric, dev, test, steps, seconds,
            threads, and with how many it went side by side, where it did.
        trace: of an error that nobody expected.
    """

    key: str
    status: str
    runhash: str | None = None
    error: str = ""
    told: dict[str, Any] = field(default_factory=dict)
    trace: str = ""


class Desk:
    """What a process keeps between tasks of the same places."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._contexts: dict[tuple[Any, ...], Context | RequestError] = {}
        self._suites: dict[tuple[Any, ...], Suite] = {}
        self._wanted: dict[tuple[Any, ...], list[Wanted]] = {}

    @cached_property
    def workspace(self) -> Workspace:
        """The places, opened. Raises RequestError."""
        places = self.places
        return open_workspace(
            zoo=places.zoo,
            runs=places.runs,
            data_root=places.data_root,
            deterministic=places.deterministic,
            tasks=places.tasks,
            track=places.track,
            track_group=places.track_group,
            beside=places.beside,
        )

    def suite(self, cell: Cell) -> Suite:
        """The suite of a cell."""
        name = (cell.suite, cell.members)
        if name not in self._suites:
            self._suites[name] = suite_of(*name)
        return self._suites[name]

    def specs(self, cell: Cell) -> list[TaskSpec]:
        """The tasks of a cell."""
        return specs_of(self.suite(cell), cell.tasks)

    def wanted(self, cell: Cell) -> list[Wanted]:
        """The sources of a composition, whatever its seed. Raises RequestError."""
        asked = (cell.source_method, cell.own, cell.budget, cell.min_gain, cell.trials)
        name = (cell.suite, cell.members, cell.tasks, cell.method, cell.protocol, cell.sources)
        key = (*name, *asked)
        if key not in self._wanted:
            self._wanted[key] = list(request_of(cell, self).wanted)
        return self._wanted[key]

    def context(self, cell: Cell) -> Context:
        """Recipe, base and settings of a cell.

        Raises:
            RequestError: the base cannot be loaded; said again, not tried again.
        """
        name = (cell.suite, cell.members, cell.model, cell.recipe, cell.protocol)
        if name not in self._contexts:
            try:
                self._contexts[name] = open_context(
                    self.suite(cell),
                    model=cell.model,
                    recipe=cell.recipe,
                    protocol=cell.protocol,
                    overrides=Overrides({}),
                    workspace=self.workspace,
                    check=lambda recipe, overrides: None,
                )
            except RequestError as error:
                self._contexts[name] = error
        found = self._contexts[name]
        if isinstance(found, RequestError):
            raise found
        typed = " ".join(_quoted(cell.words()))
        return replace(
            found,
            overrides=Overrides(dict(cell.settings)),
            workspace=replace(self.workspace, typed=typed),
        )


def _quoted(words: Sequence[str]) -> list[str]:
    import shlex

    return [shlex.quote(word) for word in words]


def check_settings(cell: Cell, desk: Desk) -> None:
    """Refuse wrong methods and settings, before a base or data are read. Raises RequestError."""
    from mtl.compose.stage_two import resolve_compose
    from mtl.joint import JOINT, resolve_joint
    from mtl.tasks import load_recipe
    from mtl.train import resolve_train

    suite = desk.suite(cell)
    recipe = replace(
        load_recipe(cell.recipe or suite.recipe, suite.name), sample_of=suite.sample_of
    )
    overrides = Overrides(dict(cell.settings))
    if cell.kind == "adapter":
        resolve_train(desk.specs(cell)[0], method_of(cell), recipe, overrides)
    elif cell.kind == "joint":
        resolve_joint(JOINT.get(cell.method), recipe, overrides, list(cell.ids))
    else:
        desk.wanted(cell)
        resolve_compose(desk.specs(cell)[0], cell.method, recipe, overrides)


def method_of(cell: Cell) -> Any:
    """The registered method, composition or joint method of a cell.

    Raises:
        RequestError: there is none of that name among those of its section.
    """
    from mtl.compose.composition import COMPOSITIONS
    from mtl.joint import JOINT
    from mtl.methods import METHODS, find_method

    homes: dict[str, Registry[Any]] = {
        "adapter": METHODS,
        "composition": COMPOSITIONS,
        "joint": JOINT,
    }
    sections = {"adapter": "train", "composition": "compose", "joint": "joint"}
    for kind, registry in homes.items():
        if kind != cell.kind and cell.method in registry and cell.method not in homes[cell.kind]:
            raise RequestError(
                f"{cell.where}: {cell.method!r} stands in the section {sections[kind]!r}."
            )
    if cell.kind == "adapter":
        return find_method(cell.method)
    return homes[cell.kind].get(cell.method)


def request_of(cell: Cell, desk: Desk) -> Request:
    """What :mod:`mtl.compose` is asked for a composition.

    Where a study names tasks of a suite, ``all`` (and what is searched among) is these.

    Raises:
        RequestError: an unknown name, or sources that do not go together.
    """
    from mtl.compose.naming import parse_source
    from mtl.compose.planning import Asked, read_request

    if cell.method == "probe":
        raise RequestError(f"{cell.where}: a probe at fixed scales is no cell of a study.")
    found = read_request(
        Asked(
            target=cell.tasks[0],
            suite=cell.suite,
            protocol=cell.protocol,
            sources=cell.sources,
            method=cell.method,
            seeds=cell.search.seeds if cell.search else [cell.seed],
            source_method=cell.source_method,
            source_seed=str(cell.source_seed),
            own=cell.own,
            budget=cell.budget,
            min_gain=cell.min_gain,
            trials=cell.trials,
            control=cell.control,
            zoo=desk.places.zoo,
        )
    )
    suite, choosing = desk.suite(cell), {"all", "best", "auto"}
    runs = {
        load_member(task, suite).id: run for task, _, run in map(parse_source, cell.source_runs)
    }
    found = replace(
        found, wanted=[replace(each, run=runs.get(each.task, each.run)) for each in found.wanted]
    )
    if not cell.members:
        return found
    names = [name for name in cell.sources if name not in choosing and "graph:" not in name]
    kept = {load_member(parse_source(name)[0], suite).id for name in names}
    if len(names) < len(cell.sources):
        kept |= {load_member(name, suite).id for name in cell.members} | {cell.ids[0]}
    return replace(found, wanted=[wanted for wanted in found.wanted if wanted.task in kept])


def among(cell: Cell, desk: Desk) -> str:
    """What a cell's sources are chosen among, and how they would be used: a hash.

    It is that of the run that would use all of them; "" where they are not named yet.
    """
    if not cell.source_runs:
        return ""
    every = replace(cell, sources=cell.source_runs, source_runs=(), control=None)
    return plan_cell(replace(every, trials=None, budget=None, min_gain=None), desk).runhash


def plan_cell(cell: Cell, desk: Desk, *, dry_run: bool = True) -> Run:
    """The run of a cell: the very one that the command line plans.

    Args:
        dry_run: leave no evidence of what was looked at, search for nothing.

    Raises:
        RequestError: unusable settings, base or data; sources that are not there.
    """
    from mtl.compose.planning import plan_composition
    from mtl.joint import plan_joint
    from mtl.train import plan_adapters

    context = desk.context(cell)
    if cell.kind == "composition":
        found = plan_composition(request_of(cell, desk), context, train=None, dry_run=dry_run)
        (run,) = found.runs
        return run
    specs = desk.specs(cell)
    if cell.kind == "adapter":
        (run,) = plan_adapters(context, specs, method=cell.method, seeds=[cell.seed])
        return run
    (run,) = plan_joint(
        specs,
        suite=context.suite.name,
        method=cell.method,
        seeds=[cell.seed],
        backbone=context.backbone,
        recipe=context.recipe,
        protocol_of=context.protocol_of,
        overrides=context.overrides,
        workspace=context.workspace,
    )
    return run
