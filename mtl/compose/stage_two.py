"""Stage two: run and build a composition of frozen sources for a target task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.arch import check_method
from mtl.compose.composition import COMPOSITIONS
from mtl.compose.control import load_sources
from mtl.compose.per_source import by_name
from mtl.compose.scalearn import ScaLearnSettings
from mtl.files import read_safetensors, write_safetensors
from mtl.methods import source_names
from mtl.runs.run import Built, Run
from mtl.runs.sections import file_name
from mtl.runs.settings import Overrides, recipe_layers, resolve_settings
from mtl.runs.workspace import Workspace, load_task_data
from mtl.zoo.composition import FILE as WEIGHTS_FILE

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.data import TaskData
    from mtl.engine import RunSettings
    from mtl.runs.context import Context
    from mtl.tasks import Recipe, Suite, TaskSpec
    from mtl.zoo import Entry, Zoo


@dataclass(frozen=True)
class Target:
    """What is to be composed for, and how: method, settings, data, twins for sources or none."""

    method: str
    method_settings: Any
    settings: RunSettings
    data: TaskData
    control: str = ""


def resolve_compose(
    spec: TaskSpec, method: str, recipe: Recipe, overrides: Overrides
) -> tuple[Any, RunSettings]:
    """The settings of composition ``method`` and of the run. Raises as ``resolve_settings``."""
    chosen = COMPOSITIONS.get(method)
    layers = recipe_layers(recipe, method, spec.id, overrides)
    return resolve_settings(chosen, layers, overrides)


def resolve_target(
    spec: TaskSpec,
    *,
    method: str,
    recipe: Recipe,
    protocol: str,
    overrides: Overrides,
    workspace: Workspace,
    control: str = "",
) -> Target:
    """Settings and data of the target, before any source is looked for.

    Raises:
        RequestError: unknown composition or setting, unusable data.
    """
    method_settings, settings = resolve_compose(spec, method, recipe, overrides)
    gate = method_settings.gate if isinstance(method_settings, ScaLearnSettings) else ""
    data = load_task_data(spec, workspace, protocol, settings, gate)
    return Target(method, method_settings, settings, data, control)


def target_in(context: Context, spec: TaskSpec, method: str, *, control: str = "") -> Target:
    """:func:`resolve_target` as a request resolves recipe, protocol and settings."""
    return resolve_target(
        spec,
        method=method,
        recipe=context.recipe,
        protocol=context.protocol_of(spec),
        overrides=context.overrides,
        workspace=context.workspace,
        control=control,
    )


def plan_compose(
    target: Target,
    *,
    suite: Suite,
    sources: Sequence[Entry],
    seeds: Sequence[int],
    backbone: Backbone,
    workspace: Workspace,
) -> list[Run]:
    """Plan a composition of ``sources`` for the target, one run per seed.

    Every seed uses the same sources, as in the paper; seeds vary head, omega and batch order. The
    entries lie where the target's own adapter does, whatever suite the sources are of. A
    setting with one number per source (``weights=0.7,0.3``) follows the order of ``sources``.

    Raises:
        RequestError: such a setting that does not fit the sources, or a base that cannot take it.
    """
    check_method(backbone.base.type, target.method)
    parents = tuple(
        {
            "ref": entry.ref,
            "digest": entry.digest,
            "task": entry.manifest.task["id"],
            "method": entry.manifest.method,
            "seed": entry.manifest.seed,
        }
        for entry in sources
    )

    composition = COMPOSITIONS.get(target.method)
    method_settings = target.method_settings
    if composition.prepare is not None:
        method_settings = composition.prepare(method_settings, target, sources, backbone, workspace)
    tasks = [parent["task"] for parent in parents]
    method_settings = by_name(method_settings, target.method, tasks, tasks)

    def build(run: Run, folder: Path | None) -> Built:
        return build_composition(run, folder, sources, workspace.zoo)

    return [
        Run(
            kind="composition",
            suite=suite.home_of(target.data.spec.id),
            datas={target.data.spec.id: target.data},
            backbone=backbone,
            method=target.method,
            method_settings=method_settings,
            settings=target.settings,
            seed=seed,
            build=build,
            parents=parents,
            control=target.control,
        )
        for seed in seeds
    ]


def build_composition(run: Run, folder: Path | None, sources: Sequence[Entry], zoo: Zoo) -> Built:
    """A fresh encoder with frozen sources, the composition and a head: new, or from ``folder``.

    The sources' own heads are not loaded; the composition learns one of its own.
    """
    from mtl.backbone import Network, build_head, load_head, save_head
    from mtl.engine import Attached, Group
    from mtl.engine.device import seed_everything

    composition = COMPOSITIONS.get(run.method)
    backbone = run.backbone
    encoder = backbone.encoder()
    names = source_names(len(sources))
    load_sources(
        encoder, names, sources, zoo, control=run.control, target=run.task_id, seed=run.seed
    )
    seed_everything(run.seed, "init")
    composed = composition.attach(encoder, names, run.method_settings)
    if folder is None:
        seed_everything(run.seed, "head")
        head = build_head(
            run.settings.head,
            encoder.config,
            run.spec.num_outputs,
            pooler=backbone.pooler,
            kind=run.spec.kind,
        )
    else:
        tensors, _ = read_safetensors(folder / WEIGHTS_FILE)
        composed.load(tensors)
        head = load_head(folder, encoder.config, pooler=backbone.pooler)
    network = Network(encoder, head, *([composed.groups.around] if composed.groups else []))
    factors = composed.lr_factors
    plain = {key: value for key, value in composed.parameters.items() if key not in factors}
    groups = [
        # A scale of 0 switches a source off: decay would do that by itself.
        Group("composition", plain, weight_decay=0.0),
        *(
            Group(key, {key: composed.parameters[key]}, lr_factor=factor, weight_decay=0.0)
            for key, factor in factors.items()
        ),
        Group("head", {f"head.{key}": value for key, value in head.trained().items()}),
    ]
    attached = Attached(
        network,
        {run.spec.id: run.spec},
        [group for group in groups if group.parameters],
        penalties=composed.penalties,
        caches=(composed.evaluating,),
    )

    def save(target: Path) -> None:
        write_safetensors(target / WEIGHTS_FILE, composed.tensors())
        save_head(
            head,
            target,
            file_name(run.spec.id),
            encoder.config,
            kind=run.spec.kind,
            labels=run.spec.labels,
            model_id=backbone.base.id,
        )

    settings = run.method_settings
    return Built(network, attached, save, lambda: composition.shares(composed, settings))
