"""Stage one: plan one adapter per task and seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone import Network, build_head, load_head, save_head
from mtl.backbone.injection import freeze
from mtl.engine.device import seed_everything
from mtl.methods import METHODS, RunFacts, attach, load
from mtl.runs.plan import Built, RunPlan
from mtl.runs.settings import Overrides, recipe_layers, resolve_settings
from mtl.runs.workspace import Workspace, load_task_data

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.engine import RunSettings
    from mtl.methods import Method
    from mtl.tasks import Recipe, TaskSpec


def resolve_train(
    spec: TaskSpec, method: Method, recipe: Recipe, overrides: Overrides
) -> tuple[Any, RunSettings]:
    """The settings of ``method`` and of the run for one task. Raises as ``resolve_settings``."""
    layers = recipe_layers(recipe, method.name, spec.id, overrides)
    return resolve_settings(method, layers, overrides)


def plan_train(
    specs: Sequence[TaskSpec],
    *,
    suite: str | None,
    method: str,
    seeds: Sequence[int],
    backbone: Backbone,
    recipe: Recipe,
    protocol: str,
    overrides: Overrides,
    workspace: Workspace,
) -> list[RunPlan]:
    """Plan a run per task and seed, in that order.

    Args:
        suite: the suite the runs belong to, None for each task's own.

    Raises:
        RequestError: unknown method or setting, unusable data.
    """
    chosen = METHODS.get(method)
    plans = []
    for spec in specs:
        method_settings, settings = resolve_train(spec, chosen, recipe, overrides)
        data = load_task_data(spec, workspace, protocol, settings)
        width = backbone.base.hidden_size
        plans += [
            RunPlan(
                kind="adapter",
                spec=data.spec,
                suite=suite or spec.suite,
                data=data,
                backbone=backbone,
                method=method,
                method_settings=method_settings,
                settings=settings,
                seed=seed,
                build=build_adapter,
                placement=chosen.placement and chosen.placement(method_settings, width),
                weights=chosen.weights(method_settings),
            )
            for seed in seeds
        ]
    return plans


def build_adapter(plan: RunPlan, folder: Path | None) -> Built:
    """A fresh encoder with the plan's adapter and head: new, or loaded from ``folder``."""
    method = METHODS.get(plan.method)
    backbone, name, settings = plan.backbone, plan.adapter_name, plan.settings
    encoder = backbone.encoder()
    if folder is None:
        seed_everything(plan.seed, "init")
        request = RunFacts(planned_steps(plan), settings.head)
        tuned = attach(encoder, method, plan.method_settings, name, request)
        seed_everything(plan.seed, "head")
        head = build_head(
            settings.head,
            encoder.config,
            plan.spec.num_outputs,
            pooler=backbone.pooler,
            kind=plan.spec.kind,
        )
    else:
        tuned = load(encoder, method, plan.method_settings, name, folder, active=True)
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
            kind=plan.spec.kind,
            labels=plan.spec.labels,
            model_id=backbone.base.id,
        )

    trained = {f"head.{key}": value for key, value in head.trained().items()}
    attached = tuned.attachment(network, {plan.spec.id: plan.spec}, trained)
    return Built(network, attached, save)


def planned_steps(plan: RunPlan) -> int:
    """Optimiser steps of the run's (first) stage."""
    settings = plan.settings
    if settings.max_steps:
        return settings.max_steps
    return settings.epochs * -(-plan.data.sizes["train"] // settings.batch_size)
