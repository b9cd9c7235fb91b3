"""Stage one: plan one adapter per task and seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone import Network, build_head, load_head, save_adapter, save_head
from mtl.engine import Attachment, Group
from mtl.engine.device import seed_everything
from mtl.methods import METHODS, attach, load, signature
from mtl.train.plan import Built, RunPlan
from mtl.train.settings import Overrides, resolve_settings
from mtl.train.workspace import Workspace, load_task_data

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.engine import RunSettings
    from mtl.methods import Method
    from mtl.tasks import Recipe, TaskSpec


def resolve_train(
    spec: TaskSpec, method: Method, recipe: Recipe, overrides: Overrides
) -> tuple[Any, RunSettings]:
    """The settings of ``method`` and of the run for one task. Raises as ``resolve_settings``."""
    values = recipe.settings(method.name, spec.id)
    return resolve_settings(method.name, method.settings, {}, values, recipe.name, overrides)


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
        data = load_task_data(
            spec, workspace, protocol, settings.max_train_samples, settings.max_eval_samples
        )
        config = chosen.config(method_settings, backbone.base.hidden_size)
        plans += [
            RunPlan(
                kind="adapter",
                spec=spec,
                suite=suite or spec.suite,
                data=data,
                backbone=backbone,
                method=method,
                method_settings=method_settings,
                settings=settings,
                seed=seed,
                build=build_adapter,
                placement=signature(config),
                weights=chosen.weights,
            )
            for seed in seeds
        ]
    return plans


def build_adapter(plan: RunPlan, folder: Path | None) -> Built:
    """A fresh encoder with the plan's adapter and head: new, or loaded from ``folder``."""
    method = METHODS.get(plan.method)
    backbone, name = plan.backbone, plan.adapter_name
    encoder = backbone.encoder()
    if folder is None:
        seed_everything(plan.seed, "init")
        parameters = attach(encoder, method, plan.method_settings, name)
        seed_everything(plan.seed, "head")
        head = build_head(
            plan.settings.head, encoder.config, plan.spec.num_outputs, pooler=backbone.pooler
        )
    else:
        load(encoder, method, plan.method_settings, name, folder)
        encoder.set_active_adapters(name)
        parameters = {}
        head = load_head(folder, encoder.config, pooler=backbone.pooler)
    network = Network(encoder, head)
    groups = [
        Group("method", {f"method.{key}": value for key, value in parameters.items()}),
        Group("head", {f"head.{key}": value for key, value in head.named_parameters()}),
    ]

    def save(target: Path) -> None:
        save_adapter(encoder, name, target, backbone.base.id)
        save_head(
            head,
            target,
            name,
            encoder.config,
            kind=plan.spec.kind,
            labels=plan.spec.labels,
            model_id=backbone.base.id,
        )

    return Built(network, Attachment(network, {plan.spec.id: plan.spec}, groups), save)
