"""``mtl.train_adapter``, ``mtl.compose_adapters``, ``mtl.train_joint``: one run each, to its entry.

They resolve, plan and execute as the commands do, by the same functions, so a run made here counts
there and the other way round: a finished one is found in the zoo, an interrupted one goes on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.compose.composition import COMPOSITIONS
from mtl.compose.planning import Asked, plan_composition, read_request
from mtl.engine.progress import progress as showing
from mtl.engine.progress import quiet
from mtl.face.asking import check_settings, context_of, flags, source_name, task_name
from mtl.face.places import root_of
from mtl.graph.opening import adding_evidence
from mtl.joint import JOINT, plan_joint, resolve_joint
from mtl.methods import find_method
from mtl.runs.context import check_seeds, specs_of, suite_of
from mtl.runs.running import Report, execute
from mtl.tasks import TaskSpec
from mtl.train import plan_adapters, resolve_train
from mtl.zoo import Entry, Zoo

if TYPE_CHECKING:
    from mtl.runs import Run


def train_adapter(
    task: str | TaskSpec,
    *,
    method: str = "pfeiffer",
    seed: int = 0,
    suite: str | None = None,
    model: str | None = None,
    recipe: str | None = None,
    protocol: str | None = None,
    zoo: Zoo | str | Path | None = None,
    runs: str | Path | None = None,
    data_root: str | Path | None = None,
    deterministic: bool = False,
    track: str | None = None,
    progress: bool | None = None,
    wait: bool = False,
    **settings: Any,
) -> Entry:
    """Stage one: train one adapter of ``task`` on a frozen encoder, and put it into the zoo.

    Examples:
        >>> import mtl
        >>> nli = mtl.train_adapter("demo/nli")  # doctest: +SKIP
        >>> nli.manifest.headline()["value"]  # doctest: +SKIP

    Args:
        task: name, YAML file, or what :func:`mtl.load_task` gives.
        method: see ``mtl methods ls``.
        suite: the suite the run belongs to, None for the task's own.
        model: Hub name, folder, or ``demo``; None: ``MTL_MODEL``, else the suite's.
        recipe: settings of a paper, ``none`` for those of the method's own; None: the suite's.
        protocol: how data are split; None: the suite's.
        zoo: its folder; None: ``MTL_ZOO``, else ``adapters_zoo``.
        runs: the folder of resume points; None: ``MTL_RUNS``, else ``runs``.
        data_root: local mirror of Hub datasets; None: ``MTL_DATA_ROOT``, else the Hub.
        deterministic: bit-equal reruns on a GPU, too.
        track: a tracker that shows training: ``tensorboard``, ``wandb``, ``mlflow``, ``trackio``.
        progress: show bars; None: where a terminal watches.
        wait: for another process that is at this run, to take its entry.
        settings: of the method and of the run, by the names of ``--set`` (``lr=1e-3, epochs=2``);
            ``method__key`` and ``run__key`` where both have one.

    Returns:
        The entry: the one that the zoo has already, or the new one.

    Raises:
        RequestError: something asked for is wrong; says what, and what there is.
        RunError: training failed, nothing half-written is left; or (``HeldError``) another process
            is at it.
    """
    chosen = find_method(method)
    check_settings(train_adapter, chosen, settings)
    name = task_name(task)
    found = suite_of(suite, [name])
    specs = specs_of(found, [name])
    context = context_of(
        found,
        settings,
        ["mtl.train", "--task", name, *flags(suite=suite, method=method, seeds=seed)],
        [name],
        lambda recipe, overrides: [resolve_train(s, chosen, recipe, overrides) for s in specs],
        model=model,
        recipe=recipe,
        protocol=protocol,
        zoo=zoo,
        runs=runs,
        data_root=data_root,
        deterministic=deterministic,
        track=track,
    )
    with showing(progress):
        planned = plan_adapters(
            context,
            specs,
            method=method,
            seeds=check_seeds([seed]),
        )
        return _entry(execute(planned[0], context.workspace, wait=wait))


def compose_adapters(
    target: str | TaskSpec,
    *,
    sources: str | Sequence[str | Entry] = "all",
    method: str = "scalearn",
    seed: int = 0,
    source_method: str = "pfeiffer",
    source_seed: int | str | None = None,
    own: bool = True,
    train_missing: bool = False,
    allow_missing: bool = False,
    budget: int | None = None,
    min_gain: float | None = None,
    graph: str | None = None,
    trials: float | None = None,
    time: float | None = None,
    control: str | None = None,
    pick: str | None = None,
    suite: str | None = None,
    model: str | None = None,
    recipe: str | None = None,
    protocol: str | None = None,
    zoo: Zoo | str | Path | None = None,
    runs: str | Path | None = None,
    data_root: str | Path | None = None,
    deterministic: bool = False,
    track: str | None = None,
    progress: bool | None = None,
    wait: bool = False,
    **settings: Any,
) -> Entry:
    """Stage two: learn how ``target`` uses frozen adapters of the zoo, and store what was learnt.

    Examples:
        >>> import mtl
        >>> nli = mtl.train_adapter("demo/nli")  # doctest: +SKIP
        >>> own = mtl.train_adapter("demo/entail")  # doctest: +SKIP
        >>> entry = mtl.compose_adapters("demo/entail", sources=[nli, own])  # doctest: +SKIP

    Args:
        target: name, YAML file, or what :func:`mtl.load_task` gives.
        sources: ``"all"`` for the tasks of the suite, ``"best"`` to search on dev which of them,
            used how (:mod:`mtl.compose.best`), ``"auto"`` to pick by transferability,
            ``"graph:k=3"`` for the strongest edges of the graph; or a list of entries and names
            (``task``, ``task:method``, ``task:method/seedN-HASH``), exactly these.
        method: see ``mtl methods ls``.
        source_method: how sources that are named by task were trained.
        source_seed: their seed, or ``"run"`` for that of the run; None: the recipe's, else 0.
        own: whether the target's own adapter is a source of ``"all"``, ``"auto"`` and ``"graph:"``.
        train_missing: train the sources that the zoo lacks.
        allow_missing: go without them.
        budget: how many sources ``"auto"`` picks at most, beside the target's own; None: 5.
        min_gain: least measured or expected transfer of what is picked, in the metric's unit.
        graph: folder of the graph, None for the zoo's.
        trials: full runs that ``"best"`` may cost; None: 12.
        time: minutes that it may take; None: any.
        control: ``"permuted"``, ``"gaussian"`` or ``"rotated"`` for twins that know nothing in
            place of the other tasks' sources (:mod:`mtl.compose.control`).
        pick: ``"best-dev"`` takes, of several entries that could be a source, the best on dev.

    The other arguments, what is returned and raised: as of :func:`mtl.train_adapter`.
    """
    name, place = task_name(target), root_of(zoo, *(() if isinstance(sources, str) else sources))
    listed = [sources] if isinstance(sources, str) else [source_name(item) for item in sources]
    asked = Asked(
        target=name,
        suite=suite,
        protocol=protocol,
        sources=listed,
        method=method,
        seeds=[seed],
        source_method=source_method,
        source_seed=None if source_seed is None else str(source_seed),
        own=own,
        train_missing=train_missing,
        allow_missing=allow_missing,
        budget=budget,
        min_gain=min_gain,
        graph=graph,
        trials=trials,
        minutes=time,
        control=control,
        pick=pick,
        zoo=place,
    )
    request = read_request(asked)
    check_settings(compose_adapters, COMPOSITIONS.get(method), settings)
    typed = ["mtl.compose", "--target", name, "--sources", *listed]
    typed += flags(
        suite=suite,
        method=method,
        seeds=seed,
        source_method=source_method,
        source_seed=source_seed,
        without_own=not own,
        train_missing=train_missing,
        allow_missing=allow_missing,
        budget=budget,
        min_gain=min_gain,
        graph=graph,
        trials=trials,
        time=time,
        control=control,
        pick=pick,
    )
    named = [name, *(item.partition(":")[0] for item in listed)]
    context = context_of(
        request.suite,
        settings,
        typed,
        named,
        request.check,
        model=model,
        recipe=recipe,
        protocol=protocol,
        zoo=place,
        runs=runs,
        data_root=data_root,
        deterministic=deterministic,
        track=track,
    )

    def train(missing: Sequence[Run], target: Any) -> list[Report]:
        return [execute(run, context.workspace, wait=wait) for run in missing]

    with showing(progress):
        planned = plan_composition(request, context, train=train)
        for text in planned.warnings:
            logging.getLogger("mtl").warning("%s", text.removeprefix("warning: "))
        for text in planned.notes if not quiet() else ():
            print(text, file=sys.stderr)
        entry = _entry(execute(planned.runs[0], context.workspace, wait=wait))
        adding_evidence(context.workspace.zoo, graph, logging.getLogger("mtl").warning)(entry)
    return entry


def train_joint(
    tasks: Sequence[str | TaskSpec] = (),
    *,
    method: str,
    seed: int = 0,
    suite: str | None = None,
    model: str | None = None,
    recipe: str | None = None,
    protocol: str | None = None,
    zoo: Zoo | str | Path | None = None,
    runs: str | Path | None = None,
    data_root: str | Path | None = None,
    deterministic: bool = False,
    track: str | None = None,
    progress: bool | None = None,
    wait: bool = False,
    **settings: Any,
) -> Entry:
    """A joint baseline: train one model on several tasks at once, for comparison.

    Examples:
        >>> import mtl
        >>> mtl.train_joint(["demo/nli", "demo/entail"], method="hyperformer++")  # doctest: +SKIP

    Args:
        tasks: names, YAML files, or what :func:`mtl.load_task` gives; none for all of ``suite``.
        method: ``hyperformer``, ``hyperformer++``, ``propetl-m``, ``adapter-m``, ``full-ft-m``.

    The other arguments, what is returned and raised: as of :func:`mtl.train_adapter`.
    """
    chosen = JOINT.get(method)
    check_settings(train_joint, chosen, settings)
    names = [task_name(task) for task in tasks]
    found = suite_of(suite, names)
    specs = specs_of(found, names)
    typed = ["mtl.joint", *(["--task", *names] if names else [])]
    context = context_of(
        found,
        settings,
        [*typed, *flags(suite=suite, method=method, seeds=seed)],
        names,
        lambda recipe, overrides: resolve_joint(chosen, recipe, overrides, [s.id for s in specs]),
        model=model,
        recipe=recipe,
        protocol=protocol,
        zoo=zoo,
        runs=runs,
        data_root=data_root,
        deterministic=deterministic,
        track=track,
    )
    with showing(progress):
        planned = plan_joint(
            specs,
            suite=found.name,
            method=method,
            seeds=check_seeds([seed]),
            backbone=context.backbone,
            recipe=context.recipe,
            protocol_of=context.protocol_of,
            overrides=context.overrides,
            workspace=context.workspace,
        )
        return _entry(execute(planned[0], context.workspace, wait=wait))


def _entry(report: Report) -> Entry:
    assert report.entry is not None  # `execute` raises where a run fails
    return report.entry
