"""The runs of ``mtl.compose`` at one point of a grid, and what is told while they are planned.

Sources that the zoo lacks are trained, and the best ones searched for, while runs are planned: what
that takes is told before it begins.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mtl.cli.grid import Point
from mtl.cli.plan import make_plan
from mtl.cli.tell import block_text
from mtl.compose.best import BUDGET, PLAIN
from mtl.compose.limits import expected_cost, search_text
from mtl.compose.measure import is_limit
from mtl.compose.missing import limits_of
from mtl.compose.planning import Planned, plan_composition
from mtl.engine.launch import launch
from mtl.engine.progress import quiet
from mtl.runs import execute_all
from mtl.runs.settings import Overrides
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.compose.best import Tried
    from mtl.compose.planning import Request
    from mtl.compose.stage_two import Target
    from mtl.graph.select import Selection
    from mtl.runs import Report, Run
    from mtl.runs.context import Context
    from mtl.zoo import Zoo


def plan_point(
    request: Request,
    point: Point,
    context: Context,
    *,
    picked: Callable[[Selection], object],
    tried: Callable[[Tried], object],
    nothing: bool,
    wait: bool,
) -> Planned:
    """:func:`plan_composition`, telling on standard error what takes long before it begins.

    Args:
        nothing: train, search and keep nothing.
        wait: for missing sources that another process is at.
    """

    def train(missing: Sequence[Run], target: Target) -> list[Report]:
        lacking = lacking_runs(missing, limits_of(target), request)
        block = block_text(make_plan(lacking, context))
        then = "a search for the best" if request.asked.best else target.method
        after = ", with the sources picked after that" if request.picking else ""
        _say(
            f"{missing_text(missing, point, context)}\n\n{block}\n\n"
            f"then {then} on {target.data.spec.id}{after}.\n"
        )
        return execute_all(missing, context.workspace, wait=wait)

    def searching(runs: Sequence[Run]) -> None:
        if not nothing:
            block = block_text(make_plan([(point, runs)], context), candidates=True)
            _say(f"{block}\n{search_told(request, len(runs[0].parents))}\n")

    return plan_composition(
        request,
        context,
        train=None if nothing else train,
        picked=picked,
        searching=searching,
        tried=tried,
        dry_run=nothing,
    )


def _say(text: str) -> None:
    if not quiet() and launch().rank == 0:
        print(text, file=sys.stderr, flush=True)


def lacking_runs(
    missing: Sequence[Run], limits: Overrides, request: Request
) -> list[tuple[Point, list[Run]]]:
    """Missing sources, each with what of the request holds for it: of the own adapter its rows."""
    return [
        (Point(run.method, limits if run.task_id == request.spec.id else Overrides()), [run])
        for run in missing
    ]


def missing_text(missing: Sequence[Run], point: Point, context: Context) -> str:
    """What is trained first, and which of the settings that were asked for hold for it."""
    asked, places = point.overrides.values, point.overrides.places

    def named(limits: bool) -> str:
        keys = [key for key in asked if is_limit(key) == limits]
        return ", ".join(f"{key.removeprefix('run.')} ({places.get(key, '--set')})" for key in keys)

    text = (
        f"Sources that the zoo lacks, {counted(len(missing), 'run')} of stage one, at the settings "
        f"of recipe {context.recipe.name}."
    )
    if named(False):
        text += f" What else was set is the composition's alone: {named(False)}."
    if named(True):
        text += f" Of the sources only the target's own adapter shares {named(True)}."
    return text


def search_told(request: Request, sources: int) -> str:
    """What a search among so many sources will do."""
    return search_text(sources, _methods(request), _budget(request), request.asked.minutes)


def search_dict(request: Request, sources: int) -> dict[str, Any]:
    """The same for ``--json``; the cost at most, in runs of the full length, is that on dev."""
    return {
        "sources": sources,
        "budget": _budget(request),
        "cost": min(expected_cost(sources, _methods(request)), _budget(request)),
        "minutes": request.asked.minutes,
    }


def _budget(request: Request) -> float:
    return BUDGET if request.asked.trials is None else request.asked.trials


def _methods(request: Request) -> int:
    return 1 if request.asked.method == PLAIN else 2


def beside_real(reports: Sequence[Report], zoo: Zoo) -> str:
    """What the compositions have over the controls that were just made, or that they lack."""
    from mtl.report.controls import gain_over
    from mtl.report.stats import interval_text
    from mtl.report.tables import by_group

    twins = by_group(report.entry for report in reports if report.entry is not None)
    lines = []
    for runs in twins.values():
        first = runs[0].manifest
        task = first.task["id"]
        gain = gain_over(runs, by_group(zoo.entries(kind="composition", task=task)))
        if gain is None:
            lines.append(
                f"{task}: a control tells nothing alone, and the zoo holds no run of its "
                "composition with these seeds: run the same command without --control, too."
            )
            continue
        lines.append(
            f"{task}: composed − control ({first.control}): {interval_text(gain, sign=True)}, "
            f"{counted(gain.n, 'seed')}"
        )
    return "\n".join(dict.fromkeys(lines))
