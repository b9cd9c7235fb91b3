"""What ``mtl.compose`` does before it composes: train missing sources, pick among them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from mtl.cli import common
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.cli.common import Context
    from mtl.compose import Target
    from mtl.compose.sources import Wanted
    from mtl.graph.request import SourceRequest
    from mtl.graph.select import Selection


def train_missing(
    wanted: Sequence[Wanted],
    target: Target,
    context: Context,
    options: Any,
    *,
    seed: int,
    picking: bool,
) -> tuple[list[dict[str, Any]], int | None]:
    """Show the plan of what the zoo lacks, then train it.

    Args:
        seed: of the sources.
        picking: ``wanted`` are candidates; which are composed is decided after training.

    Returns:
        A row per run, and the exit code where the command ends here: runs that failed, or a dry
        run (what would be composed depends on what is trained).
    """
    from mtl.compose.measure import is_limit
    from mtl.compose.missing import plan_missing
    from mtl.runs import execute_all
    from mtl.runs.settings import Overrides

    settings = asdict(target.settings)
    limits = {key: value for key, value in settings.items() if is_limit(key)}
    plans = plan_missing(
        wanted,
        target.data,
        Overrides(limits),
        suite=context.suite,
        seed=seed,
        backbone=context.backbone,
        recipe=context.recipe,
        protocol=context.protocol,
        workspace=context.workspace,
        picking=picking,
    )
    if not plans:
        return [], None
    if options.dry_run:
        common.print_dry_run(plans, context.workspace, as_json=options.json)
        return [], 0
    if not options.json:
        runs = counted(len(plans), "run")
        print(
            f"Sources that the zoo lacks, {runs} of stage one in this order:\n"
            f"{common.plan_table(plans, context.workspace)}\n"
            f"then {target.method} on {target.data.spec.id}"
            + (", with the sources picked after that.\n" if picking else ".\n"),
            file=sys.stderr,
            flush=True,
        )
    reports = execute_all(plans, context.workspace)
    if common.exit_code(reports):
        if not options.json:
            common.print_reports(reports)
        return common.report_rows(reports), 1
    return common.report_rows(reports), None


def pick(
    request: SourceRequest,
    wanted: Sequence[Wanted],
    target: Target,
    context: Context,
    options: Any,
    *,
    seed: int,
) -> Selection:
    """Pick among the wanted sources, and say why in one table."""
    from mtl.cli.graph import open_graph
    from mtl.cli.graph_runs import Scene, look, make_extractor
    from mtl.compose.refusals import argument
    from mtl.compose.suggest import keep_suggestion
    from mtl.graph import graph_folder
    from mtl.graph.calibrate import read_calibration
    from mtl.graph.select import (
        choose_auto,
        choose_from_graph,
        measured_for,
        selection_text,
        trusted_score,
    )

    zoo, base = context.workspace.zoo, context.backbone.base.fingerprint
    folder = graph_folder(zoo.root, options.graph)
    graph, problems = open_graph(zoo, folder, base if _known(zoo, base) else None)
    for text in problems:
        print(f"note: {text}", file=sys.stderr)
    spec, rows = target.data.spec, target.data.fingerprints["train"]
    tasks = {source.task for source in wanted} - {spec.id}
    if request.how == "graph":
        typed = shlex.quote(argument(spec))
        found = choose_from_graph(graph, spec.id, base, rows, request, tasks, typed)
    else:
        score, trust = trusted_score(read_calibration(folder, base))
        scene = Scene(
            context.suite, spec, target.data, context.backbone,
            context.model, context.protocol, context.workspace,
        )  # fmt: skip
        extractor = make_extractor(scene, 2000)
        seen = look(
            scene,
            extractor,
            ["all"],
            [score],
            method=options.source_method,
            seed=seed,
        )
        if not options.dry_run:
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
        found = replace(found, no_candidates={**seen.left_out, **skipped})
    if not options.json:
        print(selection_text(found, spec.id))
        print()
    return found


def _known(zoo: Any, base: str) -> bool:
    return any(entry.manifest.base["fingerprint"] == base for entry in zoo.entries())
