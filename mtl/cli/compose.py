"""``mtl.compose``: stage two, learn how a target uses frozen adapters of the zoo."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError

if TYPE_CHECKING:
    from mtl.runs import Report
    from mtl.tasks import Recipe
    from mtl.zoo import Entry


def main(argv: Sequence[str]) -> int:
    from mtl.cli.common import make_parser

    parser = make_parser(
        "mtl.compose",
        "Stage two: freeze source adapters of the zoo and learn, for a target task, how to use "
        "them; only omega and a new head train.",
    )
    parser.add_argument("--target", type=str, required=True, help="the target task, e.g. entail")
    parser.add_argument("--suite", type=str, help="the suite 'all' means [the target's]")
    parser.add_argument(
        "--sources",
        nargs="+",
        type=str,
        default=["all"],
        metavar="TASK",
        help="'all'; names of source tasks (task:method for one of another method, "
        "task:method/seedN-HASH for one of several entries; beside 'all', too); 'auto' to pick by "
        "transferability; or graph:k=3 for the strongest edges of the graph",
    )
    parser.add_argument("--method", type=str, default="scalearn", help="see mtl.methods ls")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one run per seed")
    parser.add_argument(
        "--source-method", type=str, default="pfeiffer", help="how sources were made"
    )
    parser.add_argument(
        "--source-seed",
        type=str,
        metavar="SEED",
        help="seed of the sources, or 'run' for that of each run [the recipe's, else 0]",
    )
    parser.add_argument("--without-own", action="store_true", help="leave out the target's adapter")
    parser.add_argument(
        "--allow-missing", action="store_true", help="use the sources that are there"
    )
    parser.add_argument(
        "--probe",
        nargs="*",
        type=float,
        metavar="SCALE",
        help="probe instead of compose: one source, or the grid of two, at fixed scales [the "
        "paper's seven]; only a head learns",
    )
    parser.add_argument(
        "--train-missing", action="store_true", help="first train the sources that the zoo lacks"
    )
    group = parser.add_argument_group("how many sources auto and graph:k=3 pick")
    group.add_argument("--budget", type=int, help="sources at most, beside the target's own [5]")
    group.add_argument("--min-gain", type=float, help="least measured or expected transfer")
    parser.add_argument("--graph", type=str, help="folder of the graph [MTL_GRAPH, ZOO.graph]")
    options = parser.parse_args(list(argv))
    if options.probe is not None:
        options.method = "probe"

    from mtl.cli import common
    from mtl.cli.graph import adding_evidence
    from mtl.cli.options import names
    from mtl.cli.picking import pick, train_missing
    from mtl.compose import (
        COMPOSITIONS,
        plan_compose,
        resolve_compose,
        resolve_sources,
        resolve_target,
    )
    from mtl.compose.per_source import by_name, told
    from mtl.compose.sources import ALL, typed_order, wanted_sources
    from mtl.compose.taken import alone_text, passed_over, taken_text
    from mtl.engine.progress import quiet
    from mtl.graph.request import parse_sources
    from mtl.methods import METHODS, find_method
    from mtl.runs import execute_all
    from mtl.tasks import load_task

    hint = ""
    if options.method in METHODS:
        hint = f"That is stage one: python -m mtl.train --method {options.method} --task TASK."
    COMPOSITIONS.get(options.method, hint)
    find_method(options.source_method)
    suite = common.suite_of(options, [options.target])
    spec = load_task(options.target, suite.name)
    picking = parse_sources(names(options.sources), options.budget, options.min_gain)
    wanted = wanted_sources(
        ["all"] if picking else names(options.sources),
        suite,
        spec.id,
        own=not options.without_own,
        method=options.source_method,
        composition=options.method,
        protocol=options.protocol,
    )
    context = common.open_context(
        options,
        suite,
        "compose",
        argv,
        lambda recipe, overrides: resolve_compose(spec, options.method, recipe, overrides),
    )
    target = resolve_target(
        spec,
        method=options.method,
        recipe=context.recipe,
        protocol=common.protocol_of(options, suite, spec),
        overrides=context.overrides,
        workspace=context.workspace,
    )
    seeds = common.check_seeds(options.seeds)
    rounds = _rounds(options.source_seed, context.recipe, options.method, seeds)
    if len(rounds) > 1 and picking is not None:
        raise RequestError(
            "Sources of each run's own seed cannot be picked by their features: name them with "
            "--sources, or give one --source-seed for all."
        )
    trained: list[dict[str, Any]] = []
    selection = None
    composed: list[tuple[list[Entry], list[int]]] = []
    for source_seed, of_it in rounds:
        if options.train_missing:
            rows, ended = train_missing(
                wanted, target, context, options, seed=source_seed, picking=picking is not None
            )
            trained += rows
            if ended is not None:
                return ended
        if picking is not None:
            selection = pick(picking, wanted, target, context, options, seed=source_seed)
            wanted = [s for s in wanted if s.task in {*selection.chosen, spec.id}]
        sources = resolve_sources(
            wanted,
            target.data,
            workspace=context.workspace,
            base=context.backbone.base,
            seed=source_seed,
            protocol=context.protocol,
            suite=suite.name,
            model=context.model,
            allow_missing=options.allow_missing,
        )
        common.note_unknown(sources)
        composed.append((sources, of_it))
    sources = composed[0][0]
    asked = names(options.sources)
    reasons = passed_over(sources, wanted, context.workspace.zoo, context.backbone.base, suite)
    alone = alone_text(sources, spec.id)
    if ALL in asked and not quiet():
        print("\n".join(taken_text(sources, reasons, suite, spec.id)), file=sys.stderr)
    if alone and (ALL in asked or picking is not None or sources[0].manifest.task["id"] == spec.id):
        print(alone, file=sys.stderr)
    tasks = [entry.manifest.task["id"] for entry in sources]
    typed = typed_order(asked, suite, wanted)
    target = replace(
        target, method_settings=by_name(target.method_settings, options.method, tasks, typed)
    )
    targets = [target]
    if options.probe is not None:
        from mtl.compose.probe import SCALES, grid

        chosen = grid(options.probe or SCALES, len(sources))
        targets = [replace(target, method_settings=settings) for settings in chosen]
    plans = [
        plan
        for each in targets
        for own, of_it in composed
        for plan in plan_compose(
            each,
            suite=suite.name,
            sources=own,
            seeds=of_it,
            backbone=context.backbone,
            workspace=context.workspace,
        )
    ]
    if options.dry_run:
        common.print_dry_run(plans, context.workspace, as_json=options.json)
        return 0
    evidence = adding_evidence(context.workspace.zoo, options.graph)
    reports = execute_all(plans, context.workspace, evidence)
    if options.json:
        print(
            json.dumps(
                {
                    "command": "compose",
                    "sources": [entry.ref for own, _ in composed for entry in own],
                    "trained": trained,
                    "selection": selection.to_dict() if selection else None,
                    "passed_over": reasons if ALL in asked else None,
                    "by_source": told(plans[0].method_settings, options.method) or None,
                    "runs": common.report_rows(reports),
                }
            )
        )
    else:
        common.print_reports(reports)
        values = told(plans[0].method_settings, options.method)
        if values and options.probe is None:
            print(f"\n{values[0].upper()}{values[1:]}")
        if options.probe is not None:
            print("\n" + _probe_table(reports, [entry.manifest.task["id"] for entry in sources]))
    return common.exit_code(reports)


def _rounds(
    asked: str | None, recipe: Recipe, method: str, seeds: Sequence[int]
) -> list[tuple[int, list[int]]]:
    """Seed of the sources, and the seeds of the runs that use them.

    Raises:
        RequestError: neither a number nor ``run``.
    """
    from mtl.tasks.recipes import OF_THE_RUN

    chosen = asked or recipe.source_seeds.get(method, "0")
    if chosen == OF_THE_RUN:
        return [(seed, [seed]) for seed in seeds]
    try:
        return [(int(chosen), list(seeds))]
    except ValueError as error:
        raise RequestError(
            f"--source-seed takes a number, or {OF_THE_RUN!r} for each run's own, not {chosen!r}."
        ) from error


def _probe_table(reports: Sequence[Report], sources: Sequence[str]) -> str:
    """Mean headline metric over seeds by the scale of each source; two sources make a grid."""
    from tabulate import tabulate

    found: dict[tuple[float, ...], list[float]] = {}
    for report in reports:
        if report.entry is not None:
            headline = report.entry.manifest.headline()
            assert headline is not None
            key = tuple(report.plan.method_settings.numbers())
            found.setdefault(key, []).append(headline["value"])
    means = {key: sum(values) / len(values) for key, values in found.items()}
    if len(sources) == 1:
        table = [[scale, f"{value:.4f}"] for (scale,), value in means.items()]
        return tabulate(table, headers=[f"scale of {sources[0]}", "test, mean over seeds"])
    columns = sorted({key[1] for key in means})
    rows = sorted({key[0] for key in means})
    grid = [
        [row, *(f"{means[row, c]:.4f}" if (row, c) in means else "–" for c in columns)]
        for row in rows
    ]
    head = f"test, mean over seeds; down: scale of {sources[0]}, across: scale of {sources[1]}"
    return f"{head}\n" + tabulate(grid, headers=["", *map(str, columns)])
