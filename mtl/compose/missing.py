"""Train what the zoo lacks before composing: plans of stage one for missing sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from mtl.compose.measure import is_limit
from mtl.compose.refusals import ambiguous
from mtl.compose.sources import Wanted, fitting_entries
from mtl.errors import RequestError
from mtl.runs.recorded import find_task
from mtl.runs.settings import Overrides
from mtl.tasks.recipes import OF_THE_RUN
from mtl.train.stage_one import plan_train

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.compose.stage_two import Target
    from mtl.data import TaskData
    from mtl.runs import Run, Workspace
    from mtl.tasks import Recipe, Suite


def plan_missing(
    wanted: Sequence[Wanted],
    target: TaskData,
    limits: Overrides,
    *,
    suite: Suite,
    seed: int,
    backbone: Backbone,
    recipe: Recipe,
    workspace: Workspace,
    picking: bool = False,
) -> list[Run]:
    """Stage-one runs for every wanted source without an entry, in the order they are wanted.

    Settings are the recipe's. The target's own adapter sees the target's rows: ``limits`` holds how
    many.

    Args:
        picking: the sources are candidates of which some are picked: one with several entries is
            left out then, by name.

    Raises:
        RequestError: unknown method, unusable data, or several entries for one source: nothing is
            trained for a composition that then cannot be made.
    """
    plans: list[Run] = []
    place = (target, workspace.zoo, backbone.base, seed)
    with workspace.zoo.one_look():
        there = [(source, fitting_entries(source, *place)[0]) for source in wanted]
    unclear = [
        (source, fitting)
        for source, fitting in there
        if len(fitting) > 1 and not (picking and source.task != target.spec.id)
    ]
    if unclear:
        raise ambiguous(unclear, target)
    for source, fitting in there:
        if not fitting:
            own = source.task == target.spec.id
            plans += plan_train(
                [find_task(source.task, suite.name, workspace)],
                suite=suite,
                method=source.method,
                seeds=[seed],
                backbone=backbone,
                recipe=recipe,
                protocol=target.protocol if own else source.protocol,
                overrides=limits if own else Overrides({}),
                workspace=workspace,
            )
    return plans


def limits_of(target: Target) -> Overrides:
    """Which rows the target's own adapter must see: those of the composition."""
    limits = {key: value for key, value in asdict(target.settings).items() if is_limit(key)}
    return Overrides(limits, dict.fromkeys(limits, "as the composition"))


def source_rounds(
    asked: str | None, recipe: Recipe, method: str, seeds: Sequence[int]
) -> list[tuple[int, list[int]]]:
    """Seed of the sources, and the seeds of the runs that use them.

    Raises:
        RequestError: neither a number nor ``run``.
    """
    chosen = asked or recipe.source_seeds.get(method, "0")
    if chosen == OF_THE_RUN:
        return [(seed, [seed]) for seed in seeds]
    try:
        return [(int(chosen), list(seeds))]
    except ValueError as error:
        raise RequestError(
            f"--source-seed takes a number, or {OF_THE_RUN!r} for each run's own, not {chosen!r}."
        ) from error
