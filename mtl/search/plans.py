"""What a trial runs: stage one of a task, or a composition of sources that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtl.compose.planning import plan_composition
from mtl.compose.stage_two import plan_compose, target_in
from mtl.errors import RequestError
from mtl.train.stage_one import plan_adapters

if TYPE_CHECKING:
    from mtl.compose.planning import Request
    from mtl.runs import Run
    from mtl.runs.context import Context
    from mtl.tasks import TaskSpec


def train_trials(
    context: Context, spec: TaskSpec, method: str, seeds: Sequence[int]
) -> Callable[[Mapping[str, Any]], list[Run]]:
    """Settings → runs of stage one, one per seed."""

    def make(values: Mapping[str, Any]) -> list[Run]:
        return plan_adapters(context.setting(values), [spec], method=method, seeds=seeds)

    return make


def compose_trials(request: Request, context: Context) -> Callable[[Mapping[str, Any]], list[Run]]:
    """Settings → compositions, one per seed, of the sources that the request names.

    Raises:
        RequestError: sources that are missing, or that would themselves be searched for.
    """
    if request.asked.best:
        raise RequestError(
            "--sources best is a search of its own: choose with mtl.compose first, then search the "
            "settings of what was chosen, with the sources named."
        )
    found = plan_composition(request, context, train=None, dry_run=True)

    def make(values: Mapping[str, Any]) -> list[Run]:
        here = context.setting(values)
        target = target_in(here, request.spec, request.asked.method)
        return [
            run
            for sources, seeds in found.composed
            for run in plan_compose(
                target,
                suite=request.suite,
                sources=sources,
                seeds=seeds,
                backbone=here.backbone,
                workspace=here.workspace,
            )
        ]

    return make
