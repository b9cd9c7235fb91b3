"""Learning curves: own adapter and composition of a target at several numbers of training rows.

All runs are ordinary ones. At n rows they are those of ``--max-train-samples n``, so that nothing
but the rows differs along a curve; ``--shots n`` would train by the few-shot settings of a recipe,
and at its end, where n is all that there is, nobody would. There the runs are those without a
limit, which the zoo may have already. Fewer rows are a part of more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mtl.compose.measure import is_limit
from mtl.compose.missing import plan_missing, source_rounds
from mtl.compose.naming import NamedRun
from mtl.compose.planning import plan_composition
from mtl.compose.sources import resolve_sources
from mtl.compose.stage_two import target_in
from mtl.engine.settings import ROW_SETTINGS
from mtl.errors import RequestError
from mtl.runs.context import check_seeds
from mtl.runs.running import find_done
from mtl.runs.settings import Overrides
from mtl.train.stage_one import plan_train

if TYPE_CHECKING:
    from mtl.compose.best import Tried
    from mtl.compose.planning import Planned, Request
    from mtl.compose.sources import Wanted
    from mtl.compose.stage_two import Target
    from mtl.graph.select import Selection
    from mtl.runs import Run
    from mtl.runs.context import Context

CHOOSING = ("max_train_samples", "shots", "shots_per_class", "shot_draw")
"""Settings that choose training rows, which a curve does itself."""


@dataclass(frozen=True)
class Step:
    """What is run at one number of training rows.

    Attributes:
        rows: how many.
        own: the target's own adapters, of every seed that is compared or used as a source.
        requests: one per seed of the sources, each with the own adapter among ``own`` that is its
            source, if one is; with a control one more of each, among twins.
    """

    rows: int
    context: Context
    own: list[Run]
    requests: list[tuple[Request, Run | None]]

    def compositions(
        self,
        *,
        picked: Callable[[Selection], object] = lambda selection: None,
        tried: Callable[[Tried], object] = lambda trial: None,
        dry_run: bool = False,
    ) -> tuple[list[Planned], list[Request]]:
        """Plan the compositions whose own source is in the zoo; and say which wait for it.

        Raises:
            RequestError: see :func:`mtl.compose.planning.plan_composition`.
        """
        planned: list[Planned] = []
        waiting: list[Request] = []
        for request, own in self.requests:
            if own is not None and find_done(own, self.context.workspace) is None:
                waiting.append(request)
                continue
            planned.append(
                plan_composition(
                    request, self.context, train=None, picked=picked, tried=tried, dry_run=dry_run
                )
            )
        return planned, waiting


@dataclass(frozen=True)
class CurvePlan:
    """A learning curve before it runs.

    Attributes:
        missing: runs of stage one for other sources that the zoo lacks.
        steps: fewest rows first.
        note: which numbers of rows the data do not have; empty where they have all.
    """

    missing: list[Run]
    steps: list[Step]
    note: str = ""


def check_request(request: Request, rows: Sequence[int], settings: Mapping[str, Any]) -> None:
    """Refuse what makes no curve.

    Args:
        rows: the numbers of training rows.
        settings: what the user set, by key, of compositions and own adapters.

    Raises:
        RequestError: a number below 1 or twice, rows that are chosen twice, a probe, or an own
            source of one number of rows.
    """
    wrong = [count for count in dict.fromkeys(rows) if count < 1 or list(rows).count(count) > 1]
    if wrong or not rows:
        said = f"{', '.join(map(str, wrong))} is below 1 or named twice" if wrong else "is empty"
        raise RequestError(f"--rows: {said}; give numbers of training rows, as 16,50,100.")
    limits = [key for key in settings if key.rpartition(".")[2] in CHOOSING]
    if limits:
        raise RequestError(
            f"--rows chooses the training rows of every run, and so does {limits[0]}: give one."
        )
    if request.asked.probe is not None:
        raise RequestError("--rows is for compositions: a probe has a result per scale.")
    named = [source for source in request.wanted if source.run and _is_own(source, request)]
    if named:
        raise RequestError(
            f"--rows trains the own adapter of every number of rows, and {named[0]} is of one: "
            f"name it as {named[0].task}:{named[0].method}."
        )


def plan_curve(
    request: Request, context: Context, rows: Sequence[int], own_settings: Mapping[str, Any]
) -> CurvePlan:
    """Plan the runs of a curve, as far as they can be told before own adapters are trained.

    Args:
        own_settings: of the own adapters, over the recipe's; the composition's apply to it alone.

    Raises:
        RequestError: other sources are missing or ambiguous, unusable data, no number of rows that
            the data have, or see :func:`check_request`.
    """
    check_request(request, rows, {**context.overrides.values, **own_settings})
    limits = [key for key in own_settings if is_limit(key)]
    if limits:
        raise RequestError(
            f"Own adapter and composition train on the same rows: {limits[0]} is said once, beside "
            "--rows."
        )
    whole = target_in(
        context.setting({"run.max_train_samples": 0}), request.spec, request.asked.method
    )
    total = whole.data.sizes["train"]
    there = sorted(count for count in rows if count <= total)
    beyond = sorted(count for count in rows if count > total)
    said = f"{request.spec.id} has {total:,} training rows; there is no point at "
    note = said + ", ".join(f"{count:,}" for count in beyond) if beyond else ""
    if not there:
        raise RequestError(f"--rows: {note}.")
    seeds = check_seeds(request.asked.seeds)
    rounds = source_rounds(request.asked.source_seed, context.recipe, request.asked.method, seeds)
    missing = [run for seed, _ in rounds for run in _others(request, whole, context, seed)]
    steps = []
    for count in there:
        at = context.setting({"run.max_train_samples": 0 if count == total else count})
        steps.append(_step(request, at, count, rounds, seeds, own_settings))
    return CurvePlan(missing, steps, note)


def _is_own(source: Wanted, request: Request) -> bool:
    return source.task == request.spec.id


def _others(request: Request, target: Target, context: Context, seed: int) -> list[Run]:
    """Runs for sources of other tasks that the zoo lacks; where none may be trained, all are there.

    Looked at before an own adapter is trained for a composition that then cannot be made.
    """
    asked = request.asked
    others = [source for source in request.wanted if not _is_own(source, request)]
    if asked.train_missing:
        return plan_missing(
            others,
            target.data,
            Overrides({}),
            suite=context.suite,
            seed=seed,
            backbone=context.backbone,
            recipe=context.recipe,
            workspace=context.workspace,
            picking=request.picking is not None,
        )
    if others and request.picking is None and not asked.allow_missing:
        resolve_sources(
            others,
            target.data,
            workspace=context.workspace,
            base=context.backbone.base,
            seed=seed,
            suite=request.suite,
            model=context.model,
        )
    return []


def _step(
    request: Request,
    context: Context,
    rows: int,
    rounds: Sequence[tuple[int, list[int]]],
    seeds: Sequence[int],
    own_settings: Mapping[str, Any],
) -> Step:
    """The own adapters at ``rows``, and requests whose own source is one of them."""
    target = target_in(context, request.spec, request.asked.method)
    used = [source for source in request.wanted if _is_own(source, request)]
    method = used[0].method if used else request.asked.source_method
    limits = {key: value for key, value in asdict(target.settings).items() if key in ROW_SETTINGS}
    sources = [seed for seed, _ in rounds] if used else []
    own = plan_train(
        [request.spec],
        suite=context.suite,
        method=method,
        seeds=list(dict.fromkeys([*seeds, *sources])),
        backbone=context.backbone,
        recipe=context.recipe,
        protocol=target.data.protocol,
        overrides=Overrides({**own_settings, **{f"run.{k}": v for k, v in limits.items()}}),
        workspace=context.workspace,
    )
    by_seed = {run.seed: run for run in own}
    requests = []
    control = request.asked.control
    for seed, of_it in rounds:
        source = by_seed[seed] if used else None
        done = None if source is None else find_done(source, context.workspace)
        named = None if source is None else done.manifest.runhash if done else source.runhash
        wanted = [
            replace(item, run=NamedRun(seed, named))
            if named is not None and _is_own(item, request)
            else item
            for item in request.wanted
        ]
        asked = replace(request.asked, seeds=of_it, source_seed=str(seed), train_missing=False)
        for twins in [None, control] if control else [None]:
            own_asked = replace(asked, control=twins)
            requests.append((replace(request, asked=own_asked, wanted=wanted), source))
    return Step(rows, context, own, requests)
