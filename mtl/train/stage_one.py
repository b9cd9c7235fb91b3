"""Stage one: run one adapter per task and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.arch import check_method
from mtl.methods import METHODS, RunFacts, attach, load
from mtl.runs.run import Built, Run
from mtl.runs.sections import file_name
from mtl.runs.settings import Overrides, recipe_layers, resolve_settings
from mtl.runs.workspace import Workspace, load_task_data
from mtl.train.init_from import begun_as, resolve_init

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.engine import RunSettings
    from mtl.methods import Method
    from mtl.methods.tuned import Tuned
    from mtl.runs.context import Context
    from mtl.tasks import Recipe, Suite, TaskSpec


def resolve_train(
    spec: TaskSpec, method: Method, recipe: Recipe, overrides: Overrides
) -> tuple[Any, RunSettings]:
    """The settings of ``method`` and of the run for one task. Raises as ``resolve_settings``."""
    layers = recipe_layers(recipe, method.name, spec.id, overrides)
    return resolve_settings(method, layers, overrides)


def plan_train(
    specs: Sequence[TaskSpec],
    *,
    suite: Suite,
    method: str,
    seeds: Sequence[int],
    backbone: Backbone,
    recipe: Recipe,
    protocol: str,
    overrides: Overrides,
    workspace: Workspace,
) -> list[Run]:
    """Plan a run per task and seed, in that order.

    Args:
        suite: the suite that runs of its tasks belong to; others belong to their task's own.

    Raises:
        RequestError: unknown method or setting, one that the base cannot take, unusable data.
    """
    chosen = METHODS.get(method)
    check_method(backbone.base.type, method)
    plans = []
    for spec in specs:
        method_settings, settings = resolve_train(spec, chosen, recipe, overrides)
        data = load_task_data(spec, workspace, protocol, settings)
        settings, begun = resolve_init(
            settings, method, method_settings, data, backbone.base.to_dict(), workspace
        )
        width = backbone.base.hidden_size
        plans += [
            Run(
                kind="adapter",
                suite=suite.home_of(spec.id),
                datas={data.spec.id: data},
                backbone=backbone,
                method=method,
                method_settings=method_settings,
                settings=settings,
                seed=seed,
                build=begun_as(begun, build_adapter, workspace),
                placement=chosen.placement and chosen.placement(method_settings, width),
                weights=chosen.weights(method_settings),
            )
            for seed in seeds
        ]
    return plans


def plan_adapters(
    context: Context,
    specs: Sequence[TaskSpec],
    *,
    method: str,
    seeds: Sequence[int],
) -> list[Run]:
    """Plan a run per task and seed of a request; see :func:`plan_train`."""
    return [
        run
        for spec in specs
        for run in plan_train(
            [spec],
            suite=context.suite,
            method=method,
            seeds=seeds,
            backbone=context.backbone,
            recipe=context.recipe,
            protocol=context.protocol_of(spec),
            overrides=context.overrides,
            workspace=context.workspace,
        )
    ]


def build_adapter(
    run: Run, folder: Path | None, begin: Callable[[Run, Any, Tuned], None] | None = None
) -> Built:
    """A fresh encoder with the run's adapter and head: new, or loaded from ``folder``.

    Args:
        begin: gives a new adapter other values than were drawn (:mod:`mtl.train.init_from`).
    """
    from mtl.backbone import Network, build_head, load_head, save_head
    from mtl.backbone.injection import freeze
    from mtl.engine.device import seed_everything

    method = METHODS.get(run.method)
    backbone, name, settings = run.backbone, file_name(run.spec.id), run.settings
    encoder = backbone.encoder()
    if folder is None:
        seed_everything(run.seed, "init")
        request = RunFacts(run.planned_steps, settings.head)
        tuned = attach(encoder, method, run.method_settings, name, request)
        if begin is not None:
            begin(run, encoder, tuned)
        seed_everything(run.seed, "head")
        head = build_head(
            settings.head,
            encoder.config,
            run.spec.num_outputs,
            pooler=backbone.pooler,
            kind=run.spec.kind,
        )
    else:
        tuned = load(encoder, method, run.method_settings, name, folder, active=True)
        head = load_head(folder, encoder.config, pooler=backbone.pooler)
    network = Network(encoder, head)
    if not tuned.train_head:
        freeze(head)

    def save(target: Path) -> None:
        tuned.save(target, backbone.base.id)
        save_head(
            head,
            target,
            name,
            encoder.config,
            kind=run.spec.kind,
            labels=run.spec.labels,
            model_id=backbone.base.id,
        )

    trained = {f"head.{key}": value for key, value in head.trained().items()}
    attached = tuned.attachment(network, {run.spec.id: run.spec}, trained)
    return Built(network, attached, save)
