"""Joint runs: settings, plans, and the model with its heads, new or from an entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.arch import check_method
from mtl.backbone.head_designs import HEADS
from mtl.errors import RequestError, did_you_mean
from mtl.joint.joint_method import JOINT, JointMethod, Shared
from mtl.joint.sampler import JointFeed
from mtl.methods import RunFacts
from mtl.methods.method import make_settings
from mtl.runs.loading import Loaded
from mtl.runs.run import Built, Run
from mtl.runs.sections import file_name, head_folder
from mtl.runs.settings import Overrides, Resolved, trace_settings
from mtl.runs.workspace import Workspace, load_task_data
from mtl.zoo.schema import joint_sections

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.backbone.heads import Head
    from mtl.data import Encoded
    from mtl.engine import Attached, Feed, RunSettings
    from mtl.tasks import Recipe, TaskSpec
    from mtl.zoo import Entry, Zoo

ADAPTER = "joint"
"""Name of the adapter inside the encoder and in files."""

PER_TASK = ("max_train_samples", "max_eval_samples", "sample", "head")
"""What recipe and suite may set for one task of a joint run alone: its rows, its head."""


def resolve_joint(
    method: JointMethod,
    recipe: Recipe,
    overrides: Overrides,
    tasks: Sequence[str] = (),
    task: str = "",
) -> tuple[Any, RunSettings]:
    """The settings of ``method`` and of a joint run over ``tasks``; with ``task``, with its own.

    Raises:
        RequestError: as ``resolve_settings``; or the recipe wants something else of one task.
    """
    method_settings, settings, each = _resolve_each(method, recipe, overrides, tasks)
    return method_settings, each[task] if task else settings


def _resolve_each(
    method: JointMethod, recipe: Recipe, overrides: Overrides, tasks: Sequence[str]
) -> tuple[Any, RunSettings, dict[str, RunSettings]]:
    """Settings of the method, of the run, and task → those of the run with the task's own.

    A joint run has one schedule and one model for all, so the recipe must want the same for all of
    them; only :data:`PER_TASK` may differ.

    Raises:
        RequestError: as :func:`resolve_joint`.
    """
    found = {
        name: trace_settings(method, recipe.layers(method.name, name), overrides)
        for name in tasks or ("",)
    }
    first, shared = next(iter(found.items()))
    for name, other in found.items():
        for key in _differing(shared, other):
            raise RequestError(
                f"Recipe {recipe.name!r} sets {key} of {method.name} to {_value(shared, key)} for "
                f"{first} and to {_value(other, key)} for {name}. The tasks of a joint run share "
                f"everything but {', '.join(PER_TASK)}: choose one with --set {key}=…, or leave "
                "the task out."
            )
    plain = trace_settings(method, recipe.layers(method.name, ""), overrides).run
    own = {
        key: getattr(plain, key)
        for key in PER_TASK
        if len({getattr(other.run, key) for other in found.values()}) > 1
    }
    each = {name: other.run for name, other in found.items()}
    return shared.method, replace(shared.run, **own), each


def _differing(one: Resolved, other: Resolved) -> list[str]:
    """Settings in which two tasks of a joint run differ and may not."""
    pairs = ((one.method, other.method), (one.run, other.run))
    return [
        key.name
        for mine, theirs in pairs
        for key in fields(mine)
        if key.name not in PER_TASK and getattr(mine, key.name) != getattr(theirs, key.name)
    ]


def _value(found: Resolved, key: str) -> Any:
    return getattr(found.run, key) if hasattr(found.run, key) else getattr(found.method, key)


def plan_joint(
    specs: Sequence[TaskSpec],
    *,
    suite: str,
    method: str,
    seeds: Sequence[int],
    backbone: Backbone,
    recipe: Recipe,
    protocol_of: Callable[[TaskSpec], str],
    overrides: Overrides,
    workspace: Workspace,
) -> list[Run]:
    """Plan a joint run over ``specs`` per seed.

    Args:
        protocol_of: how the data of a task are split.

    Raises:
        RequestError: unknown method or setting, fewer than two tasks, unusable data.
    """
    if len(specs) < 2:
        raise RequestError(
            f"A joint run needs at least two tasks, not {len(specs)}; mtl.train trains one."
        )
    chosen = JOINT.get(method)
    check_method(backbone.base.type, method)
    ids = [spec.id for spec in specs]
    method_settings, settings, each = _resolve_each(chosen, recipe, overrides, ids)
    datas, heads = {}, {}
    for spec in specs:
        own = each[spec.id]
        datas[spec.id] = load_task_data(spec, workspace, protocol_of(spec), own)
        if own.head != settings.head:
            heads[spec.id] = own.head
    width = backbone.base.hidden_size
    return [
        Run(
            kind="joint",
            suite=suite,
            datas=datas,
            selected=selected_tasks(method_settings.unselected, list(datas)),
            backbone=backbone,
            method=method,
            method_settings=method_settings,
            settings=settings,
            seed=seed,
            build=build_joint,
            weights=chosen.weights,
            placement=chosen.placement and chosen.placement(method_settings, width),
            heads=heads,
            make_feed=joint_feed,
        )
        for seed in seeds
    ]


def joint_feed(run: Run, encoded: Mapping[str, Encoded]) -> Feed:
    """Batches of one task each, drawn by size and temperature."""
    sampling = run.method_settings
    seed = run.seed if sampling.sampler_seed < 0 else sampling.sampler_seed
    return JointFeed(encoded, run.settings.batch_size, sampling.temperature, seed)


def selected_tasks(unselected: str, tasks: Sequence[str]) -> tuple[str, ...]:
    """The tasks whose dev splits select: all but those that ``unselected`` names.

    Raises:
        RequestError: a name that is no task's id, or nothing is left.
    """
    from mtl.tasks import list_tasks

    names = [name.strip() for name in unselected.split(",") if name.strip()]
    known = {*tasks, *list_tasks()}
    for name in names:
        if name not in known:
            guess = did_you_mean(name, known)
            raise RequestError(
                f"unselected={unselected!r} names {name!r}, which is no task.{guess}"
            )
    left = tuple(task for task in tasks if task not in names)
    if not left:
        raise RequestError(f"unselected={unselected!r} leaves no task that picks the best state.")
    return left


def build_joint(run: Run, folder: Path | None) -> Built:
    """A fresh encoder with the run's method and a head per task: new, or from ``folder``.

    Each task starts from the head that it would start from alone with this seed.
    """
    from mtl.backbone import build_head, save_head
    from mtl.engine.device import seed_everything

    method, backbone = JOINT.get(run.method), run.backbone
    encoder = backbone.encoder()
    tasks = list(run.datas)
    if folder is None:
        seed_everything(run.seed, "init")
        designs = [run.settings.head, *run.heads.values()]
        reading = [design for design in designs if HEADS.get(design).use_pooler]
        request = RunFacts(run.planned_steps, (reading or designs)[0])
        shared = method.attach(encoder, tasks, run.method_settings, ADAPTER, request)
        heads: dict[str, Head] = {}
        for task, data in run.datas.items():
            seed_everything(run.seed, "head")
            heads[task] = build_head(
                run.heads.get(task, run.settings.head),
                encoder.config,
                data.spec.num_outputs,
                pooler=backbone.pooler,
            )
    else:
        shared = method.load(encoder, tasks, run.method_settings, ADAPTER, folder)
        heads = load_heads(folder, tasks, encoder.config, backbone)
    specs = {task: data.spec for task, data in run.datas.items()}

    def save(target: Path) -> None:
        shared.tuned.save(target, backbone.base.id)
        for task, head in heads.items():
            save_head(
                head,
                target / head_folder(task),
                file_name(task),
                encoder.config,
                kind=specs[task].kind,
                labels=specs[task].labels,
                model_id=backbone.base.id,
            )

    attached = attach_all(encoder, shared, heads, specs)
    return Built(attached.network, attached, save)


def attach_all(
    encoder: Any, shared: Shared, heads: Mapping[str, Head], specs: Mapping[str, TaskSpec]
) -> Attached:
    """Encoder, method and heads as the engine trains them."""
    from mtl.joint.network import JointNetwork

    trained = {
        f"head.{task}.{key}": value
        for task, head in heads.items()
        for key, value in head.trained().items()
    }
    return shared.tuned.attachment(JointNetwork(encoder, heads, shared.use), specs, trained)


def load_heads(
    folder: Path, tasks: Sequence[str], config: Any, backbone: Backbone
) -> dict[str, Head]:
    """The stored heads, frozen.

    Raises:
        ZooError: a head is missing, damaged, or does not fit.
    """
    from mtl.backbone import load_head
    from mtl.backbone.injection import freeze

    heads = {}
    for task in tasks:
        heads[task] = load_head(folder / head_folder(task), config, pooler=backbone.pooler)
        freeze(heads[task])
    return heads


def load_joint(entry: Entry, zoo: Zoo, backbone: Backbone) -> Loaded:
    """A joint model, which answers for the batch's ``task``; see :func:`mtl.runs.load`.

    Raises:
        RequestError: a method that this version does not know.
        ZooError: damaged files, or weights that do not fit.
    """
    from mtl.backbone.bounded import bounded
    from mtl.engine import Attached
    from mtl.joint.network import JointNetwork

    manifest = entry.manifest
    method = JOINT.get(manifest.method)
    settings = make_settings(manifest.method, method.settings, dict(manifest.method_settings))
    encoder = backbone.encoder()
    tasks = list(joint_sections(manifest.task, manifest.data, entry.ref))
    with zoo.reading(entry), bounded(entry.ref):
        shared = method.load(encoder, tasks, settings, ADAPTER, entry.folder)
        heads = load_heads(entry.folder, tasks, encoder.config, backbone)
    network = JointNetwork(encoder, heads, shared.use).eval()
    attached = Attached(network, {}, [], caches=shared.tuned.caches)
    return Loaded(entry, (), (), network, attached, tuned=shared.tuned)
