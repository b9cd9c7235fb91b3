"""The searches of a study: which there are, over what, and which runs wait for them.

There is one for every method, base and set of settings that the study names, on the task of the
search or on each: what is found holds beside what is set. All seeds of a run share it. Joint runs
keep their settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mtl.compose.composition import COMPOSITIONS
from mtl.errors import RequestError, did_you_mean, unknown
from mtl.methods import METHODS
from mtl.runs.context import suite_of
from mtl.search.space import parts, read_space, setting_types
from mtl.study.cells import Cell, Searched, suites_of
from mtl.tasks import load_member

if TYPE_CHECKING:
    from mtl.search.space import Dimension
    from mtl.study.file import Search, Study


def with_searches(study: Study, cells: Sequence[Cell]) -> list[Cell]:
    """The cells of a study with its searches before those that use them.

    Raises:
        RequestError: a seed of the search that is one of the study's, a setting that is set or that
            nothing has, a method that has nothing to be searched for, a task that is not there.
    """
    search = study.search
    if search is None:
        return list(cells)
    _check_seeds(search, cells)
    over = _over(search, cells)
    task = _task(search, study)
    first: dict[str, Cell] = {}
    users: dict[str, dict[str, None]] = {}
    of: dict[str, str] = {}
    for cell in cells:
        if cell.kind == "joint":
            continue
        _check_set(search, over[cell.method], cell)
        found = _trial(cell, task, search, over[cell.method])
        # seeds of a run, and draws of its rows, share a search: the first one's sources and rows
        settings = {key: value for key, value in found.settings.items() if key != "shot_draw"}
        group = of[cell.key] = replace(found, source_seed=None, settings=settings).key
        first.setdefault(group, found)
        users.setdefault(group, {})[cell.ids[0]] = None
    whole = {
        group: replace(cell, search=replace(cell.search, users=tuple(users[group])))
        for group, cell in first.items()
        if cell.search is not None
    }
    made: list[Cell] = []
    for kind in ("adapter", "composition", "joint"):
        own = [cell for cell in cells if cell.kind == kind]
        made += {of[cell.key]: whole[of[cell.key]] for cell in own if cell.key in of}.values()
        made += [
            replace(cell, tuned=whole[of[cell.key]].key) if cell.key in of else cell for cell in own
        ]
    return made


def space_of(cell: Cell) -> tuple[Dimension, ...]:
    """What a search is over. Raises RequestError."""
    assert cell.search is not None
    return read_space(cell.search.over, _registered(cell), f"{cell.where}: search, over")


def _registered(cell: Cell) -> Any:
    try:
        return (COMPOSITIONS if cell.kind == "composition" else METHODS).get(cell.method)
    except RequestError as error:
        raise RequestError(f"{cell.where}: {error}") from error


def _trial(cell: Cell, task: str | None, search: Search, over: tuple[str, ...]) -> Cell:
    searched = Searched(over, search.trials, search.seeds, search.prune)
    found = replace(cell, seed=search.seeds[0], search=searched, row="")
    if task is None:
        return found
    suite = suite_of(cell.suite, cell.members)
    return replace(found, tasks=(task,), ids=(load_member(task, suite).id,))


def _task(search: Search, study: Study) -> str | None:
    """The one task of the search, or None."""
    if search.task is None:
        return None
    (_, suite), *others = suites_of(study)
    if others:
        raise RequestError(
            f"{search.where}, task: a study of several suites is searched on each of its tasks: "
            "task: each."
        )
    try:
        load_member(search.task, suite)
    except RequestError as error:
        raise RequestError(f"{search.where}, task (or `task: each`): {error}") from error
    return search.task


def _check_seeds(search: Search, cells: Sequence[Cell]) -> None:
    used = {cell.seed: cell for cell in reversed(cells)}  # the first one of each
    for seed in search.seeds:
        if seed in used:
            free = next(number for number in range(100, 100 + len(used) + 1) if number not in used)
            raise RequestError(
                f"{search.where}, seed {seed}: {used[seed].where} has it, too. What chose the "
                f"settings would then judge them; take one that no run has, such as {free}."
            )


def _over(search: Search, cells: Sequence[Cell]) -> Mapping[str, tuple[str, ...]]:
    """Method → what of the search it has; a setting that one method alone has is searched there."""
    methods = {cell.method: _registered(cell) for cell in cells if cell.kind != "joint"}
    if not methods:
        raise RequestError(f"{search.where}: there is neither train nor compose to search for.")
    known = {name: setting_types(method) for name, method in methods.items()}
    found: dict[str, list[str]] = {name: [] for name in methods}
    for item in search.over:
        owner, key, _ = parts(item)
        if owner and owner not in methods:
            raise RequestError(f"{search.where}, over: {unknown('method', owner, methods)}")
        having = [name for name in ([owner] if owner else methods) if key in known[name]]
        if not having:
            every = sorted(
                {each for name in ([owner] if owner else methods) for each in known[name]}
            )
            raise RequestError(
                f"{search.where}, over: {owner or 'no method of this study'} has "
                f"{'no ' if owner else 'a '}setting {key!r}.{did_you_mean(key, every)}"
            )
        for name in having:
            found[name].append(item)
    for name, items in found.items():
        if not items:
            raise RequestError(
                f"{search.where}, over names no setting of {name}, which would then have no trials "
                f"where others have {search.trials}. Add one, such as lr."
            )
    return {name: tuple(items) for name, items in found.items()}


def _check_set(search: Search, over: Sequence[str], cell: Cell) -> None:
    searched = {parts(item)[1].rpartition(".")[2] for item in over}
    both = sorted(searched & {key.rpartition(".")[2] for key in cell.settings})
    if both:
        raise RequestError(
            f"{cell.where}: {', '.join(both)} is set, and searched for ({search.where}). Leave it "
            "out of one of them."
        )
    chosen = [name for name in cell.sources if name in {"best", "auto"} or "graph:" in name]
    if chosen:
        raise RequestError(
            f"{cell.where}: sources: {chosen[0]} are chosen when the run begins, and with search "
            "they must be known before. Name them, or say all."
        )
