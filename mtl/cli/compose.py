"""``mtl.compose``: stage two, learn how a target uses frozen adapters of the zoo."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


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
        help="'all'; names of source tasks (task:method for one of another method); 'auto' to pick "
        "by transferability; or graph:k=3 for the strongest edges of the graph",
    )
    parser.add_argument("--method", type=str, default="scalearn", help="see mtl.methods ls")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one run per seed")
    parser.add_argument(
        "--source-method", type=str, default="pfeiffer", help="how sources were made"
    )
    parser.add_argument("--source-seed", type=int, default=0, help="seed of the sources")
    parser.add_argument("--without-own", action="store_true", help="leave out the target's adapter")
    parser.add_argument(
        "--allow-missing", action="store_true", help="use the sources that are there"
    )
    parser.add_argument(
        "--train-missing", action="store_true", help="first train the sources that the zoo lacks"
    )
    group = parser.add_argument_group("how many sources auto and graph:k=3 pick")
    group.add_argument("--budget", type=int, help="sources at most, beside the target's own [5]")
    group.add_argument("--min-gain", type=float, help="least measured or expected transfer")
    parser.add_argument("--graph", type=str, help="folder of the graph [MTL_GRAPH, ZOO.graph]")
    options = parser.parse_args(list(argv))

    from mtl.cli import common
    from mtl.cli.graph import add_evidence
    from mtl.cli.options import names
    from mtl.cli.picking import pick, train_missing
    from mtl.compose import (
        COMPOSITIONS,
        plan_compose,
        resolve_compose,
        resolve_sources,
        resolve_target,
    )
    from mtl.compose.sources import wanted_sources
    from mtl.graph.request import parse_sources
    from mtl.methods import METHODS, find_method
    from mtl.tasks import load_task
    from mtl.train import execute_all

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
        protocol=context.protocol,
        overrides=context.overrides,
        workspace=context.workspace,
    )
    trained: list[dict[str, Any]] = []
    if options.train_missing:
        trained, ended = train_missing(wanted, target, context, options)
        if ended is not None:
            return ended
    selection = None
    if picking is not None:
        selection = pick(picking, wanted, target, context, options)
        wanted = [s for s in wanted if s.task in {*selection.chosen, spec.id}]
    sources = resolve_sources(
        wanted,
        target.data,
        zoo=context.workspace.zoo,
        base=context.backbone.base,
        seed=options.source_seed,
        protocol=context.protocol,
        suite=suite.name,
        model=context.model,
        allow_missing=options.allow_missing,
    )
    plans = plan_compose(
        target,
        suite=suite.name,
        sources=sources,
        seeds=common.check_seeds(options.seeds),
        backbone=context.backbone,
        workspace=context.workspace,
    )
    if options.dry_run:
        common.print_dry_run(plans, context.workspace, as_json=options.json)
        return 0
    reports = execute_all(plans, context.workspace)
    add_evidence([r.entry for r in reports if r.entry], context.workspace.zoo, options.graph)
    if options.json:
        print(
            json.dumps(
                {
                    "command": "compose",
                    "sources": [entry.ref for entry in sources],
                    "trained": trained,
                    "selection": selection.to_dict() if selection else None,
                    "runs": common.report_rows(reports),
                }
            )
        )
    else:
        common.print_reports(reports)
    return common.exit_code(reports)
