"""Measure transfer: every source alone for every target, beside the target's own adapter.

For each target and seed two kinds of runs, on the same base, rows and split: the target's own
adapter, and per source a composition of that source alone (its frozen adapter and a new head). The
difference of their headline metric on the test split is the measured transfer of the edge. All runs
are ordinary ones: what the zoo has is skipped, what was killed goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mtl.compose.sources import Wanted, find_candidates
from mtl.compose.stage_two import plan_compose, resolve_target
from mtl.engine.settings import ROW_SETTINGS
from mtl.runs.settings import Overrides
from mtl.train.stage_one import plan_train

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.runs import Run, Workspace
    from mtl.tasks import Recipe, Suite, TaskSpec


@dataclass(frozen=True)
class MeasurePlan:
    """The runs of a measurement.

    Attributes:
        own: the targets' own adapters.
        single: compositions of one source each.
        left_out: (target, source) → why there is no run.
        limits: what of the overrides the own adapters share.
    """

    own: list[Run]
    single: list[Run]
    left_out: dict[tuple[str, str], str]
    limits: Overrides


def plan_measure(
    targets: Sequence[TaskSpec],
    sources: Sequence[Wanted],
    *,
    suite: Suite,
    seeds: Sequence[int],
    method: str,
    source_method: str,
    source_seed: int,
    backbone: Backbone,
    recipe: Recipe,
    protocol_of: Callable[[TaskSpec], str],
    overrides: Overrides,
    workspace: Workspace,
) -> MeasurePlan:
    """Plan own adapters and single-source compositions.

    Args:
        protocol_of: how the data of a target are split.
        method: the composition; ``average`` takes the source as it is, and only the head learns.
        overrides: settings of the compositions; of the own adapters only the limits on rows apply,
            for both must see the same data.

    Raises:
        RequestError: unknown method or setting, unusable data.
    """
    rows = {k: v for k, v in overrides.values.items() if is_limit(k)}
    limits = replace(overrides, values=rows)
    found = MeasurePlan([], [], {}, limits)
    for spec in targets:
        target = resolve_target(
            spec,
            method=method,
            recipe=recipe,
            protocol=protocol_of(spec),
            overrides=overrides,
            workspace=workspace,
        )
        found.own.extend(
            plan_train(
                [spec],
                suite=suite,
                method=source_method,
                seeds=seeds,
                backbone=backbone,
                recipe=recipe,
                protocol=protocol_of(spec),
                overrides=limits,
                workspace=workspace,
            )
        )
        wanted = [source for source in sources if source.task != spec.id]
        entries, left_out = find_candidates(
            wanted, target.data, workspace.zoo, backbone.base, source_seed
        )
        found.left_out.update({(spec.id, task): why for task, why in left_out.items()})
        for entry in entries:
            found.single.extend(
                plan_compose(
                    target,
                    suite=suite,
                    sources=[entry],
                    seeds=seeds,
                    backbone=backbone,
                    workspace=workspace,
                )
            )
    return found


def is_limit(key: str) -> bool:
    """Whether a setting says which rows are used."""
    return key.rpartition(".")[2] in ROW_SETTINGS
