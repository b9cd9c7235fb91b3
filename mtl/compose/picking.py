"""Picking sources for a target: ``auto`` by transferability, ``graph:`` by the strongest edges."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.compose.refusals import argument

if TYPE_CHECKING:
    from mtl.compose.sources import Wanted
    from mtl.compose.stage_two import Target
    from mtl.graph.request import SourceRequest
    from mtl.graph.select import Selection
    from mtl.runs.context import Context
    from mtl.zoo import Zoo


def pick(
    request: SourceRequest,
    wanted: Sequence[Wanted],
    target: Target,
    context: Context,
    *,
    method: str,
    folder: Path,
    seed: int,
    keep: bool,
) -> tuple[Selection, list[str]]:
    """Pick among the wanted sources: the selection, and remarks on what could not be read.

    Args:
        method: of the sources.
        folder: of the graph.
        keep: write what was looked at beside the zoo, as evidence.
    """
    from mtl.compose.scene import Scene
    from mtl.compose.suggest import keep_suggestion
    from mtl.graph.calibrate import read_calibration
    from mtl.graph.opening import open_graph
    from mtl.graph.select import choose_auto, choose_from_graph, measured_for, trusted_score

    zoo, base = context.workspace.zoo, context.backbone.base.fingerprint
    graph, problems = open_graph(zoo, folder, base if _known(zoo, base) else None)
    notes = [f"note: {text}" for text in problems]
    spec, rows = target.data.spec, target.data.fingerprints["train"]
    tasks = {source.task for source in wanted} - {spec.id}
    if request.how == "graph":
        typed = shlex.quote(argument(spec))
        return choose_from_graph(graph, spec.id, base, rows, request, tasks, typed), notes
    score, trust = trusted_score(read_calibration(folder, base))
    scene = Scene(
        context.suite,
        spec,
        target.data,
        context.backbone,
        context.model,
        context.asked_protocol,
        context.workspace,
        target.settings.precision,
    )
    extractor = scene.extractor()
    others = [source for source in wanted if source.task != spec.id]
    seen = scene.look(extractor, others, [score], method=method, seed=seed)
    if keep:
        keep_suggestion(seen, target.data, extractor, folder)
    values = {task: v[score] for task, v in seen.values.items() if score in v}
    measured = {
        task: item
        for task, item in measured_for(graph, spec.id, base, rows).items()
        if task in seen.entries
    }
    found = choose_auto(values, seen.base.get(score), measured, trust, score, request)
    skipped = {
        task: f"no {score}: {why[score]}"
        for task, why in seen.skipped.items()
        if score in why and task not in measured
    }
    return replace(found, no_candidates={**seen.left_out, **skipped}), notes


def _known(zoo: Zoo, base: str) -> bool:
    return any(summary.fingerprint == base for summary in zoo.summaries())
