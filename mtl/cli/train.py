"""``mtl.train``: stage one, one adapter per task and seed into the zoo."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from mtl.typed import given


def main(argv: Sequence[str]) -> int:
    from mtl.cli.common import add_methods, make_parser

    parser = make_parser(
        "mtl.train",
        "Stage one: train one adapter per task and seed on a frozen encoder, and put it with its "
        "head into the zoo. Finished runs are skipped, interrupted ones go on.",
    )
    parser.add_argument("--suite", type=str, help="train all tasks of a suite, e.g. demo")
    parser.add_argument(
        "--task", nargs="+", type=str, default=[], metavar="TASK", help="only these tasks"
    )
    add_methods(parser, "a method of stage one; several make a run each", "pfeiffer")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one run per seed")
    options = parser.parse_args(list(argv))

    from mtl.cli import common
    from mtl.cli.grid import read_grid
    from mtl.cli.options import names
    from mtl.cli.planned import run_planned
    from mtl.compose.composition import COMPOSITIONS
    from mtl.methods import find_method
    from mtl.runs.context import check_seeds, specs_of, suite_of
    from mtl.train import plan_adapters, resolve_train

    grid = read_grid(options, parser)
    methods = {}
    for point in grid.points:
        hint = ""
        if point.method in COMPOSITIONS:
            hint = (
                f"That is stage two: python -m mtl.compose --method {point.method}"
                f"{given('--zoo')} --target TASK."
            )
        methods[point.method] = find_method(point.method, hint)
    tasks = names(options.task)
    suite = suite_of(options.suite, tasks)
    specs = specs_of(suite, tasks)
    context = common.open_context(
        options,
        grid,
        suite,
        "train",
        argv,
        lambda recipe, point: [
            resolve_train(spec, methods[point.method], recipe, point.overrides) for spec in specs
        ],
    )
    seeds = check_seeds(options.seeds)
    planned = [
        (
            point,
            plan_adapters(
                replace(context, overrides=point.overrides), specs, method=point.method, seeds=seeds
            ),
        )
        for point in grid.points
    ]
    ran = run_planned(planned, grid, context, options)
    if ran is None:
        return 0
    plan, reports = ran
    if options.json:
        rows = common.report_rows(reports)
        print(json.dumps({"command": "train", "runs": rows, "plan": plan}))
    else:
        common.print_reports(reports)
    return common.exit_code(reports)
